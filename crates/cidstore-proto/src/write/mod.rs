//! Encoding replies and notifications.

mod notification;
mod reply;
mod writer;

pub use notification::encode_notification;
pub use reply::encode_reply;
