//! Threads for what is too large for the thread that everybody's requests go through: reading many
//! rows, decoding large messages.

use crate::req::{Addressee, Event, Raw};
use crate::service::{self, Service};
use crate::transport::Mailbox;
use cidstore_engine::Snapshot;
use cidstore_proto::Command;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Work for the pool.
pub enum Task {
    /// Decode a large request.
    Decode(Box<Raw>),
    /// Answer a large read, as of the snapshot.
    Read(Box<(Addressee, Command)>, Arc<Snapshot>),
}

/// The pool; its threads end when it is dropped.
pub struct Pool {
    tasks: SyncSender<Task>,
}

impl Pool {
    /// Starts `threads` threads behind a queue of `queue_max` tasks.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        threads: usize,
        queue_max: usize,
        service: &Arc<Service>,
        replies: &Arc<Mailbox<Event>>,
    ) -> std::io::Result<(Self, Vec<JoinHandle<()>>)> {
        let (tasks, receiver) = sync_channel(queue_max);
        let receiver = Arc::new(Mutex::new(receiver));
        let handles = (0..threads).map(|i| {
            let (receiver, service, replies) =
                (Arc::clone(&receiver), Arc::clone(service), Arc::clone(replies));
            std::thread::Builder::new()
                .name(format!("read-{i}"))
                .spawn(move || work(&receiver, &service, &replies))
        });
        let handles = handles.collect::<Result<_, _>>()?;
        Ok((Self { tasks }, handles))
    }

    /// Hands a task over.
    ///
    /// # Errors
    /// The task, when the queue is full.
    pub fn submit(&self, task: Task) -> Result<(), Task> {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        self.tasks.try_send(task).map_err(|(Full(task) | Disconnected(task))| task)
    }
}

fn work(tasks: &Mutex<Receiver<Task>>, service: &Service, replies: &Mailbox<Event>) {
    loop {
        let task = tasks.lock().expect("a panic ends the process").recv();
        match task {
            Ok(Task::Decode(raw)) => {
                let decoded = service.decode(&raw.incoming.payload, raw.received_at);
                replies.push(Event::Decoded(raw, decoded));
            }
            Ok(Task::Read(read, snapshot)) => {
                let (to, command) = *read;
                let service::Answer { bytes, refused } = service.read_all(&to, &command, &snapshot);
                replies.push(Event::Answered { to, bytes, refused });
            }
            Err(_) => return,
        }
    }
}
