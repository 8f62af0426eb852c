//! A blocking HTTP/1.1 connection: enough to drive a server hard from a thread per connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const HEADERS_MAX: usize = 64;
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

/// One keep-alive connection, opened again when the server closed it.
pub struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Connection {
    /// A connection to be opened by the first request.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            buffer: Vec::new(),
        }
    }

    /// Where it leads.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The connection cannot be opened or breaks. Whether the server acted on the request is then unknown; nothing is
    /// sent again.
    pub fn request(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<HttpResponse> {
        let result = self.exchange(method, path, body);
        if result.is_err() {
            self.stream = None;
        }
        result
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> io::Result<HttpResponse> {
        let mut request = Vec::with_capacity(body.len() + 160);
        write!(
            request,
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
            self.address,
            body.len()
        )?;
        request.extend_from_slice(body);
        let stream = match &mut self.stream {
            Some(stream) => stream,
            empty => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(READ_TIMEOUT))?;
                self.buffer.clear();
                empty.insert(stream)
            }
        };
        stream.write_all(&request)?;
        let (response, consumed, close) = read_response(stream, &mut self.buffer)?;
        self.buffer.drain(..consumed);
        if close {
            self.stream = None;
        }
        Ok(response)
    }
}

/// Reads one answer: the answer, the bytes it took of the buffer, and whether the server closes the connection.
fn read_response(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<(HttpResponse, usize, bool)> {
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("malformed response: {what}"));
    loop {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        let status = parsed.parse(buffer).map_err(|error| malformed(&error.to_string()))?;
        if let httparse::Status::Complete(head) = status {
            let value = |name: &str| {
                let header = parsed
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case(name));
                header.and_then(|header| std::str::from_utf8(header.value).ok())
            };
            let length = value("content-length").map_or(Ok(0), |text| text.trim().parse::<usize>());
            let length = length.map_err(|_| malformed("content-length"))?;
            let close = value("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            let code = parsed.code.ok_or_else(|| malformed("no status"))?;
            while buffer.len() < head + length {
                fill(stream, buffer)?;
            }
            let body = buffer[head..head + length].to_vec();
            return Ok((HttpResponse { status: code, body }, head + length, close));
        }
        fill(stream, buffer)?;
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 16 * 1024];
    let read = loop {
        match stream.read(&mut chunk) {
            // A thread that has driven a ring may be called back by the kernel while it waits; nothing was read.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    if read == 0 {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection",
        ));
    }
    buffer.extend_from_slice(&chunk[..read]);
    Ok(())
}
