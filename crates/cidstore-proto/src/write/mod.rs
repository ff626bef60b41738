//! Writing replies and notifications, and requests for clients.

mod notification;
mod reply;
mod request;
mod writer;

pub use notification::encode_notification;
pub use reply::encode_reply;
pub use request::encode_request;
