//! A TCP line to a server that can be cut, made to hang, or made to break all the time.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Line {
    /// Bytes pass both ways.
    Open,
    /// Connections are taken and nothing ever answers.
    Silent,
    /// Connections end as soon as they are made.
    Cut,
    /// Connections pass bytes for so long, then end with a reset.
    Breaking(Duration),
}

pub struct Proxy {
    pub port: u16,
    line: watch::Sender<Line>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn to(server: u16, line: Line) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (line, watched) = watch::channel(line);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(client, SocketAddr::from(([127, 0, 0, 1], server)), watched.clone()));
            }
        });
        Self { port, line, task }
    }

    /// Changes the line; connections that stand end.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, server: SocketAddr, mut line: watch::Receiver<Line>) {
    let mode = *line.borrow_and_update();
    let changed = async {
        // An error means that the test is over.
        let _ = line.changed().await;
    };
    match mode {
        Line::Cut => {}
        Line::Silent => changed.await,
        Line::Open | Line::Breaking(_) => {
            let Ok(mut server) = TcpStream::connect(server).await else { return };
            let broken = async {
                match mode {
                    Line::Breaking(after) => tokio::time::sleep(after).await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                () = changed => {}
                () = broken => {}
            }
            // A reset instead of an orderly end.
            let _ = client.set_zero_linger();
        }
    }
}
