//! Bytes to requests.
//!
//! [`parse`] is given all bytes of a connection that are not consumed yet and says whether they begin with a whole
//! request. What it has learned about an incomplete one is kept in [`ParseState`], so that no byte is looked at twice
//! however small the pieces are in which they come.

use crate::config::NetLimits;
use std::borrow::Cow;
use std::mem::MaybeUninit;

/// Header lines that are looked at; more is 431.
const HEADERS_MAX: usize = 64;
/// Bytes of a chunk-size line or of one trailer line.
const CHUNK_LINE_BYTES_MAX: usize = 256;

/// The request methods that we answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Head,
    Post,
    Options,
    Other,
}

/// A whole request, borrowed from the connection's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    pub method: Method,
    /// The path, without scheme, host and query.
    pub path: &'a str,
    /// The content type is `application/cbor`.
    pub cbor: bool,
    /// The connection may carry another request after this one.
    pub keep_alive: bool,
    pub body: Cow<'a, [u8]>,
}

/// Why bytes are not a request that we answer. The connection ends with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: u16,
    pub text: &'static str,
}

/// What the bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed<'a> {
    /// Part of a request.
    Incomplete,
    /// A request of `consumed` bytes.
    Request { request: Request<'a>, consumed: usize },
    /// Something else.
    Refused(Refusal),
}

/// What is known of the request at the front of a connection's bytes.
#[derive(Debug, Default)]
pub(crate) struct ParseState {
    /// Bytes in which no end of the headers was found.
    scanned: usize,
    head: Option<Head>,
}

impl ParseState {
    /// The headers are complete and the body is not.
    pub(crate) fn in_body(&self) -> bool {
        self.head.is_some()
    }

    /// True once for each request whose client waits for `100 Continue` before it sends the body.
    pub(crate) fn take_expects_continue(&mut self) -> bool {
        self.head
            .as_mut()
            .is_some_and(|head| std::mem::take(&mut head.expects_continue))
    }

    /// Bytes of the whole request, if they are known already.
    pub(crate) fn request_bytes(&self) -> Option<usize> {
        match self.head.as_ref()? {
            Head {
                bytes,
                body: Body::Length(length),
                ..
            } => Some(bytes + length),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Head {
    /// Bytes up to and including the empty line.
    bytes: usize,
    method: Method,
    /// Where the path lies in the connection's bytes.
    path: std::ops::Range<usize>,
    cbor: bool,
    keep_alive: bool,
    expects_continue: bool,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Length(usize),
    Chunked(Chunked),
}

/// Looks for a whole request at the front of `data`. After anything but [`Parsed::Incomplete`] the state is as new;
/// after it, the next call must be given the same bytes and more.
pub(crate) fn parse<'a>(data: &'a [u8], state: &mut ParseState, limits: &NetLimits) -> Parsed<'a> {
    if state.head.is_none() {
        match parse_head(data, &mut state.scanned, limits) {
            Ok(None) => return Parsed::Incomplete,
            Ok(Some(head)) => state.head = Some(head),
            Err(refusal) => {
                *state = ParseState::default();
                return Parsed::Refused(refusal);
            }
        }
    }
    let end = match &mut state.head {
        None => return Parsed::Incomplete,
        Some(Head {
            bytes,
            body: Body::Length(length),
            ..
        }) => {
            let end = *bytes + *length;
            Ok((data.len() >= end).then_some(end))
        }
        Some(Head {
            bytes,
            body: Body::Chunked(chunked),
            ..
        }) => chunked.decode(&data[*bytes..], limits.body_bytes_max),
    };
    match end {
        Ok(None) => Parsed::Incomplete,
        Ok(Some(_)) => take_request(data, state),
        Err(refusal) => {
            *state = ParseState::default();
            Parsed::Refused(refusal)
        }
    }
}

/// The request that is known to be whole.
fn take_request<'a>(data: &'a [u8], state: &mut ParseState) -> Parsed<'a> {
    let Some(head) = std::mem::take(state).head else {
        return Parsed::Incomplete;
    };
    let (body, consumed) = match head.body {
        Body::Length(length) => {
            let end = head.bytes + length;
            (Cow::Borrowed(&data[head.bytes..end]), end)
        }
        Body::Chunked(chunked) => (Cow::Owned(chunked.decoded), head.bytes + chunked.position),
    };
    let path = std::str::from_utf8(&data[head.path]).unwrap_or_default();
    let (method, cbor, keep_alive) = (head.method, head.cbor, head.keep_alive);
    Parsed::Request {
        request: Request {
            method,
            path,
            cbor,
            keep_alive,
            body,
        },
        consumed,
    }
}

/// `Ok(None)` while the headers are incomplete.
fn parse_head(data: &[u8], scanned: &mut usize, limits: &NetLimits) -> Result<Option<Head>, Refusal> {
    let first_try = *scanned == 0;
    let from = scanned.saturating_sub(3);
    *scanned = data.len();
    // Bytes that trickle in are searched for the end of the headers before they are parsed again from the start.
    if !first_try && !has_empty_line(&data[from..]) {
        return if data.len() > limits.header_bytes_max {
            Err(HEADERS_TOO_LARGE)
        } else {
            Ok(None)
        };
    }
    // Two kilobytes that a request with four headers would otherwise be charged for.
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(data, &mut headers) {
        Ok(httparse::Status::Complete(bytes)) if bytes <= limits.header_bytes_max => {
            read_head(data, bytes, &request, limits).map(Some)
        }
        Ok(httparse::Status::Partial) if data.len() <= limits.header_bytes_max => Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(HEADERS_TOO_LARGE),
        Err(httparse::Error::Version) => Err(Refusal {
            status: 505,
            text: "Only HTTP/1.1 and HTTP/1.0 are spoken here.",
        }),
        Err(_) => Err(Refusal {
            status: 400,
            text: "The request is not valid HTTP/1.1.",
        }),
    }
}

fn has_empty_line(data: &[u8]) -> bool {
    data.windows(2).any(|pair| pair == b"\n\n") || data.windows(3).any(|triple| triple == b"\n\r\n")
}

/// What the headers say.
fn read_head(
    data: &[u8],
    bytes: usize,
    request: &httparse::Request<'_, '_>,
    limits: &NetLimits,
) -> Result<Head, Refusal> {
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("POST") => Method::Post,
        Some("OPTIONS") => Method::Options,
        _ => Method::Other,
    };
    let Some(target) = request.path else {
        return Err(Refusal {
            status: 400,
            text: "The request has no target.",
        });
    };
    let mut head = Head {
        bytes,
        method,
        path: path_range(data, target),
        cbor: false,
        keep_alive: request.version == Some(1),
        expects_continue: false,
        body: Body::Length(0),
    };
    let mut framing = Framing::default();
    for header in request.headers.iter() {
        read_header(header, &mut head, &mut framing)?;
    }
    head.body = framing.body(request.version)?;
    if matches!(head.body, Body::Length(length) if length > limits.body_bytes_max) {
        return Err(BODY_TOO_LARGE);
    }
    // A client of HTTP/1.0 knows no interim responses.
    head.expects_continue &= request.version == Some(1) && !matches!(head.body, Body::Length(0));
    Ok(head)
}

/// What the headers say of where the body ends.
#[derive(Default)]
struct Framing {
    length: Option<usize>,
    chunked: bool,
}

impl Framing {
    fn body(&self, version: Option<u8>) -> Result<Body, Refusal> {
        let refused = |text| Err(Refusal { status: 400, text });
        match (self.chunked, self.length) {
            // Proxies that read only one of the two would see another request than we do.
            (true, Some(_)) => refused("Both content-length and transfer-encoding are given."),
            // Who put the header there and who reads it may disagree on where the body ends.
            (true, None) if version == Some(0) => refused("HTTP/1.0 has no transfer-encoding."),
            (true, None) => Ok(Body::Chunked(Chunked::default())),
            (false, length) => Ok(Body::Length(length.unwrap_or(0))),
        }
    }
}

/// Notes what one header says.
fn read_header(header: &httparse::Header<'_>, head: &mut Head, framing: &mut Framing) -> Result<(), Refusal> {
    let value = header.value.trim_ascii();
    // The length of a name tells most headers apart without comparing them.
    match header.name.len() {
        14 if is(header, "content-length") => {
            let parsed = parse_length(value)?;
            if framing.length.replace(parsed).is_some_and(|earlier| earlier != parsed) {
                return Err(Refusal {
                    status: 400,
                    text: "The content-length headers contradict each other.",
                });
            }
        }
        12 if is(header, "content-type") => head.cbor = is_cbor(value),
        17 if is(header, "transfer-encoding") => {
            if !value.eq_ignore_ascii_case(b"chunked") || framing.chunked {
                return Err(Refusal {
                    status: 501,
                    text: "The only transfer-encoding understood is chunked.",
                });
            }
            framing.chunked = true;
        }
        10 if is(header, "connection") => {
            if has_token(value, "close") {
                head.keep_alive = false;
            } else if has_token(value, "keep-alive") {
                head.keep_alive = true;
            }
        }
        6 if is(header, "expect") => head.expects_continue = value.eq_ignore_ascii_case(b"100-continue"),
        _ => {}
    }
    Ok(())
}

fn is(header: &httparse::Header<'_>, name: &str) -> bool {
    header.name.eq_ignore_ascii_case(name)
}

fn is_cbor(value: &[u8]) -> bool {
    let essence = value.split(|&byte| byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/cbor")
}

fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn parse_length(value: &[u8]) -> Result<usize, Refusal> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Refusal {
            status: 400,
            text: "The content-length is not a number.",
        });
    }
    // Digits alone fail to parse only by being too many, and then the body is too large for us too.
    std::str::from_utf8(value)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .ok_or(BODY_TOO_LARGE)
}

/// Where the path of the request target lies within `data`; `target` is a part of `data`.
fn path_range(data: &[u8], target: &str) -> std::ops::Range<usize> {
    let start = target.as_ptr() as usize - data.as_ptr() as usize;
    // The absolute form, used towards proxies: the path begins at the first slash after the authority.
    let scheme = if target.starts_with('/') {
        None
    } else {
        target.find("://")
    };
    let skipped = scheme.map_or(0, |scheme| {
        let authority = scheme + 3;
        target[authority..]
            .find('/')
            .map_or(target.len(), |slash| authority + slash)
    });
    let path = &target.as_bytes()[skipped..];
    let is_end = |byte: &u8| matches!(byte, b'?' | b'#');
    let length = path.iter().position(is_end).unwrap_or(path.len());
    start + skipped..start + skipped + length
}

/// A body in chunks, decoded as far as it has come.
#[derive(Debug, Default)]
struct Chunked {
    /// Bytes after the headers that are dealt with.
    position: usize,
    /// Bytes of the current chunk that are still to come; its line end is counted by `line_end`.
    missing: usize,
    stage: Stage,
    decoded: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Size,
    Data,
    DataEnd,
    Trailer,
}

impl Chunked {
    /// Decodes further; `data` begins after the headers. `Ok(Some(_))` is the number of bytes up to the body's end.
    fn decode(&mut self, data: &[u8], body_bytes_max: usize) -> Result<Option<usize>, Refusal> {
        loop {
            // Tiny chunks cost more in sizes than in data; that too has to be bounded.
            if self.position > 2 * body_bytes_max + 64 * 1024 {
                return Err(BODY_TOO_LARGE);
            }
            let rest = &data[self.position..];
            if self.stage == Stage::Data {
                let count = rest.len().min(self.missing);
                self.decoded.extend_from_slice(&rest[..count]);
                self.position += count;
                self.missing -= count;
                if self.missing > 0 {
                    return Ok(None);
                }
                self.stage = Stage::DataEnd;
                continue;
            }
            let Some(end) = rest.iter().take(CHUNK_LINE_BYTES_MAX).position(|&byte| byte == b'\n') else {
                return if rest.len() >= CHUNK_LINE_BYTES_MAX {
                    Err(BAD_CHUNK)
                } else {
                    Ok(None)
                };
            };
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            self.position += end + 1;
            if self.take_line(line, body_bytes_max)? {
                return Ok(Some(self.position));
            }
        }
    }

    /// Deals with a line between the chunks; true if it ends the body.
    fn take_line(&mut self, line: &[u8], body_bytes_max: usize) -> Result<bool, Refusal> {
        match self.stage {
            Stage::Size => {
                self.missing = parse_chunk_size(line)?;
                if self.missing > body_bytes_max - self.decoded.len().min(body_bytes_max) {
                    return Err(BODY_TOO_LARGE);
                }
                self.stage = if self.missing == 0 { Stage::Trailer } else { Stage::Data };
            }
            Stage::DataEnd if line.is_empty() => self.stage = Stage::Size,
            Stage::Trailer => return Ok(line.is_empty()),
            Stage::DataEnd | Stage::Data => return Err(BAD_CHUNK),
        }
        Ok(false)
    }
}

fn parse_chunk_size(line: &[u8]) -> Result<usize, Refusal> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(BAD_CHUNK);
    }
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| usize::from_str_radix(digits, 16).ok())
        .ok_or(BAD_CHUNK)
}

const HEADERS_TOO_LARGE: Refusal = Refusal {
    status: 431,
    text: "The request headers are too large.",
};
const BODY_TOO_LARGE: Refusal = Refusal {
    status: 413,
    text: "The request body is too large.",
};
const BAD_CHUNK: Refusal = Refusal {
    status: 400,
    text: "The chunked body is malformed.",
};

#[cfg(test)]
mod tests;
