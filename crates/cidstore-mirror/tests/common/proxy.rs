//! A TCP line to a server that can be cut, made to hang, or made to break all the time.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
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
    /// What clients say on connections that stand is kept back until [`Proxy::deliver_late`].
    Holding,
}

pub struct Proxy {
    pub port: u16,
    line: watch::Sender<Line>,
    deliver: watch::Sender<bool>,
    delivered: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<()>,
}

/// How a connection learns what to do with what it held back, and tells that it did.
#[derive(Clone)]
struct Held {
    deliver: watch::Receiver<bool>,
    delivered: watch::Sender<usize>,
}

impl Proxy {
    pub async fn to(server: u16, line: Line) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (line, watched) = watch::channel(line);
        let (deliver, delivering) = watch::channel(false);
        let (delivered_tx, delivered) = watch::channel(0);
        let held = Held { deliver: delivering, delivered: delivered_tx };
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(
                    client,
                    SocketAddr::from(([127, 0, 0, 1], server)),
                    watched.clone(),
                    held.clone(),
                ));
            }
        });
        Self { port, line, deliver, delivered, task }
    }

    /// Lets the server have what was held back, and waits until it has done with it.
    pub async fn deliver_late(&mut self) {
        self.deliver.send_replace(true);
        let waiting = self.delivered.wait_for(|bytes| *bytes > 0);
        tokio::time::timeout(super::DEADLINE, waiting).await.expect("something was held back").unwrap();
    }

    /// Changes the line; connections that stand end, unless they are held.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, server: SocketAddr, mut line: watch::Receiver<Line>, held: Held) {
    let mode = *line.borrow_and_update();
    match mode {
        Line::Cut | Line::Holding => {}
        // An error means that the test is over.
        Line::Silent => drop(line.changed().await),
        Line::Open | Line::Breaking(_) => {
            let Ok(mut server) = TcpStream::connect(server).await else { return };
            let broken = async {
                match mode {
                    Line::Breaking(after) => tokio::time::sleep(after).await,
                    _ => std::future::pending().await,
                }
            };
            let changed = tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => false,
                _ = line.changed() => true,
                () = broken => false,
            };
            if changed && *line.borrow() == Line::Holding {
                return hold(client, server, held).await;
            }
            // A reset instead of an orderly end.
            let _ = client.set_zero_linger();
        }
    }
}

async fn hold(mut client: TcpStream, mut server: TcpStream, mut held: Held) {
    let mut bytes = Vec::new();
    // Until the client gives up, one way or the other.
    let _ = client.read_to_end(&mut bytes).await;
    let _ = held.deliver.wait_for(|deliver| *deliver).await;
    // The server may have ended the connection: then there is nobody to deliver to.
    let _ = server.write_all(&bytes).await;
    let _ = server.shutdown().await;
    // It closes its side when it has run all of it.
    let _ = server.read_to_end(&mut Vec::new()).await;
    held.delivered.send_modify(|delivered| *delivered += bytes.len());
}
