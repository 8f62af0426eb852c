//! Answers to bytes.

/// What the body of a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Cbor,
    Text,
    Empty,
    Other(&'static str),
}

/// The interim response that lets a client send its body.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a browser wants to know before it sends us a request from another origin's page.
const PREFLIGHT: &[u8] = b"access-control-allow-methods: GET,POST\r\n\
    access-control-allow-headers: authorization,accept,content-type\r\n\
    access-control-max-age: 600\r\n";

/// How a response is framed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub status: u16,
    pub content: Content,
    /// False adds `connection: close`.
    pub keep_alive: bool,
    /// Adds what a CORS preflight asks for.
    pub preflight: bool,
    /// Adds the methods that the path takes, which no 405 may be without.
    pub allow: Option<&'static str>,
    /// Adds `retry-after: 1`.
    pub retry_after: bool,
    /// Lets pages of other origins read the response.
    pub cross_origin: bool,
}

impl Head {
    /// An ordinary response on a connection that stays.
    pub(crate) fn new(status: u16, content: Content) -> Self {
        Self {
            status,
            content,
            keep_alive: true,
            preflight: false,
            allow: None,
            retry_after: false,
            cross_origin: true,
        }
    }
}

/// Appends a response; with `omit_body` (an answer to HEAD) all but its body.
pub(crate) fn write_response(output: &mut Vec<u8>, head: Head, body: &[u8], omit_body: bool) {
    output.reserve(256 + body.len());
    output.extend_from_slice(status_line(head.status));
    match head.content {
        Content::Cbor => output.extend_from_slice(b"content-type: application/cbor\r\n"),
        Content::Text => output.extend_from_slice(b"content-type: text/plain; charset=utf-8\r\n"),
        Content::Other(kind) => {
            output.extend_from_slice(b"content-type: ");
            output.extend_from_slice(kind.as_bytes());
            output.extend_from_slice(b"\r\n");
        }
        Content::Empty => {}
    }
    if head.cross_origin {
        output.extend_from_slice(b"access-control-allow-origin: *\r\n");
    }
    if head.preflight {
        output.extend_from_slice(PREFLIGHT);
    }
    if let Some(methods) = head.allow {
        output.extend_from_slice(b"allow: ");
        output.extend_from_slice(methods.as_bytes());
        output.extend_from_slice(b"\r\n");
    }
    if head.retry_after {
        output.extend_from_slice(b"retry-after: 1\r\n");
    }
    if !head.keep_alive {
        output.extend_from_slice(b"connection: close\r\n");
    }
    output.extend_from_slice(b"content-length: ");
    write_decimal(output, body.len());
    output.extend_from_slice(b"\r\n\r\n");
    if !omit_body {
        output.extend_from_slice(body);
    }
}

fn write_decimal(output: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    output.extend_from_slice(&digits[start..]);
}

fn status_line(status: u16) -> &'static [u8] {
    match status {
        200 => b"HTTP/1.1 200 OK\r\n",
        202 => b"HTTP/1.1 202 Accepted\r\n",
        400 => b"HTTP/1.1 400 Bad Request\r\n",
        403 => b"HTTP/1.1 403 Forbidden\r\n",
        404 => b"HTTP/1.1 404 Not Found\r\n",
        405 => b"HTTP/1.1 405 Method Not Allowed\r\n",
        408 => b"HTTP/1.1 408 Request Timeout\r\n",
        413 => b"HTTP/1.1 413 Content Too Large\r\n",
        429 => b"HTTP/1.1 429 Too Many Requests\r\n",
        431 => b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
        501 => b"HTTP/1.1 501 Not Implemented\r\n",
        503 => b"HTTP/1.1 503 Service Unavailable\r\n",
        504 => b"HTTP/1.1 504 Gateway Timeout\r\n",
        505 => b"HTTP/1.1 505 HTTP Version Not Supported\r\n",
        _ => b"HTTP/1.1 500 Internal Server Error\r\n",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_framed() {
        let mut output = Vec::new();
        let head = Head {
            keep_alive: false,
            retry_after: true,
            ..Head::new(503, Content::Text)
        };
        write_response(&mut output, head, b"busy", false);
        assert_eq!(
            String::from_utf8(output).unwrap(),
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n\
             access-control-allow-origin: *\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 4\r\n\r\nbusy"
        );
        let mut output = Vec::new();
        write_response(&mut output, Head::new(200, Content::Cbor), &[0; 1234], true);
        assert!(output.ends_with(b"content-length: 1234\r\n\r\n"));
    }
}
