//! The plain HTTP service before a database: a thread and a database connection per client connection.
//!
//! With 64 clients that wait for a disk this is what a web framework's thread pool comes to as well; there is no queue in
//! between. `POST /transfer` has a signed body whose Ed25519 signature is verified; `POST /trusted` has the same body and
//! believes it, to show what the signatures cost.

use super::Store;
use crate::BenchError;
use candid::Principal;
use ed25519_zebra::{Signature, VerificationKey};
use replicore_workloads::Identity;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const KEY_BYTES: usize = 44;
const SIGNATURE_BYTES: usize = 64;
const REQUEST_BYTES_MAX: usize = 4_096;
const DOMAIN: &[u8] = b"transfer";

/// Opens a database connection for a client connection.
type Open = dyn Fn() -> Result<Box<dyn Store>, BenchError> + Send + Sync;

/// A running service; dropping it stops accepting. Connections end when their clients do.
pub struct Service {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Service {
    /// Serves on a port of the loopback interface.
    pub fn start(open: Arc<Open>) -> Result<Self, BenchError> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(BenchError::new)?;
        let address = listener.local_addr().map_err(BenchError::new)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let acceptor = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if flag.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), Ok(store)) = (stream, open()) else {
                    continue;
                };
                std::thread::spawn(move || serve(stream, store));
            }
        });
        Ok(Self {
            address,
            stop,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the acceptor.
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ended = acceptor.join();
        }
    }
}

/// The body of a transfer: key, signature, amount, nonce, payee.
pub fn body(payer: &Identity, payee: &Principal, amount: u64, nonce: u64) -> Vec<u8> {
    let mut message = DOMAIN.to_vec();
    message.extend_from_slice(&amount.to_le_bytes());
    message.extend_from_slice(&nonce.to_le_bytes());
    message.extend_from_slice(payee.as_slice());
    let mut body = payer.public_key_der().to_vec();
    body.extend_from_slice(&payer.sign(&message));
    body.extend_from_slice(&message);
    body
}

/// Serves one connection until it ends.
fn serve(mut stream: TcpStream, mut store: Box<dyn Store>) {
    let _slower_at_worst = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(REQUEST_BYTES_MAX);
    while let Ok(Some((head, length, is_trusted))) = read_request(&mut stream, &mut buffer) {
        let result = transfer(&buffer[head..head + length], is_trusted, store.as_mut());
        let (status, text) = match result {
            Ok(number) => ("200 OK", number.to_string()),
            Err(error) => ("400 Bad Request", error.to_string()),
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
        buffer.drain(..head + length);
    }
}

/// Reads until a whole request is in the buffer: where its body begins, how long it is, and whether it is to be believed.
fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<(usize, usize, bool)>> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        if let Ok(httparse::Status::Complete(head)) = request.parse(buffer) {
            let length = request
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok())
                .unwrap_or_default();
            if buffer.len() >= head + length {
                return Ok(Some((head, length, request.path == Some("/trusted"))));
            }
        }
        if buffer.len() > REQUEST_BYTES_MAX {
            return Ok(None);
        }
        let mut chunk = [0; REQUEST_BYTES_MAX];
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            read => buffer.extend_from_slice(&chunk[..read]),
        }
    }
}

fn transfer(body: &[u8], is_trusted: bool, store: &mut dyn Store) -> Result<u64, BenchError> {
    let malformed = || BenchError::new("malformed transfer");
    let (key, rest) = body.split_at_checked(KEY_BYTES).ok_or_else(malformed)?;
    let (signature, message) = rest.split_at_checked(SIGNATURE_BYTES).ok_or_else(malformed)?;
    let fields = message.strip_prefix(DOMAIN).ok_or_else(malformed)?;
    let (amount, rest) = fields.split_first_chunk::<8>().ok_or_else(malformed)?;
    let (_nonce, payee) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
    if !is_trusted {
        verify(key, signature, message)?;
    }
    let payer = Principal::self_authenticating(key);
    store.transfer(payer.as_slice(), payee, u64::from_le_bytes(*amount))
}

fn verify(key_der: &[u8], signature: &[u8], message: &[u8]) -> Result<(), BenchError> {
    let key = VerificationKey::try_from(&key_der[KEY_BYTES - 32..]).map_err(BenchError::new)?;
    let signature = Signature::try_from(signature).map_err(BenchError::new)?;
    key.verify(&signature, message).map_err(BenchError::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use replicore_workloads::http::Connection;

    struct Counting(u64);

    impl Store for Counting {
        fn transfer(&mut self, _payer: &[u8], _payee: &[u8], amount: u64) -> Result<u64, BenchError> {
            self.0 += amount;
            Ok(self.0)
        }
    }

    #[test]
    fn a_signed_transfer_is_taken_and_a_forged_one_is_not() {
        let service = Service::start(Arc::new(|| Ok(Box::new(Counting(0)) as Box<dyn Store>))).unwrap();
        let mut client = Connection::new(service.address());
        let (payer, payee) = (Identity::numbered(1), Identity::numbered(2).principal());
        let mut signed = body(&payer, &payee, 5, 0);
        assert_eq!(client.request("POST", "/transfer", &signed).unwrap().body, b"5");
        *signed.last_mut().unwrap() ^= 1;
        assert_eq!(client.request("POST", "/transfer", &signed).unwrap().status, 400);
        assert_eq!(client.request("POST", "/trusted", &signed).unwrap().body, b"10");
        assert_eq!(client.request("POST", "/transfer", b"short").unwrap().status, 400);
    }
}
