//! HTTP/1.1, as much of it as the public interface needs: parsed where the bytes lie, answered into a buffer.

pub(crate) mod parse;
pub(crate) mod respond;
pub(crate) mod route;
