//! Answers, and how they are encoded.

use crate::http::respond::{CONTINUE, Content, Head, write_response};
use crate::plain::HttpResponse;
use crate::service::{CallReply, QueryReply, QueryResponse, ReadStateError, ServiceBusy, StatusReport};
use minicbor::Encoder;
use minicbor::data::Tag;
use minicbor::encode::Write;
use replicore_types::{Payload, UserError};
use std::borrow::Cow;
use std::convert::Infallible;

/// The tag that says "this is CBOR".
const SELF_DESCRIBED: Tag = Tag::new(55799);
/// Version of the interface specification that the endpoints follow.
const IC_API_VERSION: &str = "0.18.0";

/// An answer to an HTTP request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The client may send its body; the answer proper follows.
    Continue,
    /// Yes to a CORS preflight.
    Preflight,
    /// The path takes other methods, these.
    WrongMethod(&'static str),
    Status(Box<StatusReport>),
    /// `wait` tells the v3 and v4 forms from the v2 form.
    Call {
        reply: CallReply,
        wait: bool,
    },
    Query(Result<QueryReply, ServiceBusy>),
    ReadState(Result<Payload, ReadStateError>),
    /// The answer of a plain HTTP service.
    Plain(HttpResponse),
    /// An error in words.
    Text {
        status: u16,
        text: Cow<'static, str>,
        retry_after: bool,
    },
}

/// How the answer is framed on its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Framing {
    pub keep_alive: bool,
    pub omit_body: bool,
}

type Encoded = Result<(), minicbor::encode::Error<Infallible>>;

impl Answer {
    pub(crate) fn text(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self::Text {
            status,
            text: text.into(),
            retry_after: false,
        }
    }

    /// An error that passes by itself.
    pub(crate) fn overloaded(status: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self::Text {
            status,
            text: text.into(),
            retry_after: true,
        }
    }

    /// Bytes of what it carries, and as good as all that it takes while it waits.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Call {
                reply: CallReply::Certificate(bytes),
                ..
            }
            | Self::ReadState(Ok(bytes))
            | Self::Query(Ok(QueryReply {
                response: QueryResponse::Replied(bytes),
                ..
            })) => bytes.len(),
            Self::Plain(response) => response.body.len(),
            // Errors and other short texts.
            _ => 0,
        }
    }

    /// Appends the response; `scratch` is room for its body.
    pub(crate) fn write(&self, output: &mut Vec<u8>, scratch: &mut Vec<u8>, framing: Framing) {
        scratch.clear();
        let mut head = match self {
            Self::Continue => {
                output.extend_from_slice(CONTINUE);
                return;
            }
            Self::Preflight => Head {
                preflight: true,
                allow: Some("GET,HEAD,POST,OPTIONS"),
                ..Head::new(200, Content::Empty)
            },
            Self::WrongMethod(methods) => Head {
                allow: Some(methods),
                ..words(scratch, 405, &format!("This path takes {methods}."))
            },
            Self::Status(report) => cbor(scratch, |writer| status(writer, report)),
            Self::Call { reply, wait } => call(scratch, reply, *wait),
            Self::Query(Ok(reply)) => cbor(scratch, |writer| query(writer, reply)),
            Self::Query(Err(busy)) => overloaded(scratch, *busy),
            Self::ReadState(Ok(certificate)) => cbor(scratch, |writer| {
                writer.map(1)?.str("certificate")?.bytes(certificate)?;
                Ok(())
            }),
            Self::ReadState(Err(error)) => read_state_error(scratch, error),
            Self::Plain(response) => {
                let mut head = Head::new(response.status, Content::Other(response.content_type));
                head.keep_alive = framing.keep_alive;
                head.cross_origin = false;
                return write_response(output, head, &response.body, framing.omit_body);
            }
            Self::Text {
                status,
                text,
                retry_after,
            } => Head {
                retry_after: *retry_after,
                ..words(scratch, *status, text)
            },
        };
        head.keep_alive = framing.keep_alive;
        write_response(output, head, scratch, framing.omit_body);
    }
}

/// Encodes a CBOR body; writing to memory cannot fail.
fn cbor(scratch: &mut Vec<u8>, encode: impl FnOnce(&mut Encoder<&mut Vec<u8>>) -> Encoded) -> Head {
    let mut writer = Encoder::new(scratch);
    match writer.tag(SELF_DESCRIBED).map(drop).and_then(|()| encode(&mut writer)) {
        Ok(()) => Head::new(200, Content::Cbor),
        Err(error) => unreachable!("encoding to memory failed: {error}"),
    }
}

fn words(scratch: &mut Vec<u8>, status: u16, text: &str) -> Head {
    scratch.extend_from_slice(text.as_bytes());
    Head::new(status, Content::Text)
}

fn overloaded(scratch: &mut Vec<u8>, ServiceBusy(bound): ServiceBusy) -> Head {
    let head = words(
        scratch,
        503,
        &format!("Service is overloaded, try again later: {bound}"),
    );
    Head {
        retry_after: true,
        ..head
    }
}

fn status<W: Write<Error = Infallible>>(writer: &mut Encoder<W>, report: &StatusReport) -> Encoded {
    let health = if report.healthy {
        "healthy"
    } else {
        "waiting_for_certified_state"
    };
    writer.map(5)?;
    writer.str("ic_api_version")?.str(IC_API_VERSION)?;
    writer.str("root_key")?.bytes(&report.root_key)?;
    writer.str("impl_version")?.str(&report.implementation)?;
    writer.str("replica_health_status")?.str(health)?;
    writer.str("certified_height")?.u64(report.certified_height)?;
    Ok(())
}

fn call(scratch: &mut Vec<u8>, reply: &CallReply, wait: bool) -> Head {
    match reply {
        CallReply::Certificate(certificate) if wait => cbor(scratch, |writer| {
            writer
                .map(2)?
                .str("status")?
                .str("replied")?
                .str("certificate")?
                .bytes(certificate)?;
            Ok(())
        }),
        // The v2 form has no place for a certificate; its clients ask for it.
        CallReply::Certificate(_) | CallReply::Accepted => Head::new(202, Content::Empty),
        CallReply::Rejected(error) => cbor(scratch, |writer| {
            writer.map(3 + u64::from(wait))?;
            if wait {
                writer.str("status")?.str("non_replicated_rejection")?;
            }
            rejection(writer, error)
        }),
        CallReply::Busy(busy) => overloaded(scratch, *busy),
    }
}

/// Three entries of a map.
fn rejection<W: Write<Error = Infallible>>(writer: &mut Encoder<W>, error: &UserError) -> Encoded {
    writer.str("reject_code")?.u64(error.reject_code() as u64)?;
    writer.str("reject_message")?.str(&error.description)?;
    writer.str("error_code")?.str(&error.code.to_string())?;
    Ok(())
}

fn query<W: Write<Error = Infallible>>(writer: &mut Encoder<W>, reply: &QueryReply) -> Encoded {
    match &reply.response {
        QueryResponse::Replied(arg) => {
            writer.map(3)?.str("status")?.str("replied")?;
            writer.str("reply")?.map(1)?.str("arg")?.bytes(arg)?;
        }
        QueryResponse::Rejected(error) => {
            writer.map(5)?.str("status")?.str("rejected")?;
            rejection(writer, error)?;
        }
    }
    writer.str("signatures")?.array(1)?.map(3)?;
    writer.str("timestamp")?.u64(reply.timestamp.as_nanos())?;
    writer.str("signature")?.bytes(&reply.signature)?;
    writer.str("identity")?.bytes(reply.node.as_slice())?;
    Ok(())
}

fn read_state_error(scratch: &mut Vec<u8>, error: &ReadStateError) -> Head {
    match error {
        ReadStateError::InvalidPath(text) => words(scratch, 400, text),
        ReadStateError::Forbidden(text) => words(scratch, 403, text),
        ReadStateError::NotFound(text) => words(scratch, 404, text),
        ReadStateError::Unavailable => {
            let head = words(
                scratch,
                503,
                "Certified state is not available yet. Please try again...",
            );
            Head {
                retry_after: true,
                ..head
            }
        }
    }
}
