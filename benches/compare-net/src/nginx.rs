//! nginx, from Debian's package (`cargo xtask peers` installs it): one worker on the first core, no log, the same answer
//! from memory.

use crate::peers::{ANSWER_BODY_BYTES, Peer};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = "/usr/sbin/nginx";
/// How long it may take until it listens.
const START_MAX: Duration = Duration::from_secs(10);

/// A running nginx, which ends when this is dropped.
pub struct Nginx {
    process: Child,
    _folder: tempfile::TempDir,
}

/// Starts it; `None` where it is not installed.
pub fn start() -> Option<Peer> {
    if !Path::new(PROGRAM).exists() {
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let free = TcpListener::bind("127.0.0.1:0").expect("loopback can be listened on");
    let address = free.local_addr().expect("a listener has an address");
    drop(free);
    let configuration = folder.path().join("nginx.conf");
    fs::write(&configuration, configured(folder.path(), address)).expect("the folder is ours");
    let process = Command::new(PROGRAM)
        .arg("-c")
        .arg(&configuration)
        .arg("-p")
        .arg(folder.path())
        .stdin(Stdio::null())
        .spawn()
        .expect("nginx starts");
    let nginx = Nginx {
        process,
        _folder: folder,
    };
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(begin.elapsed() < START_MAX, "nginx does not listen on {address}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(Peer {
        name: "nginx",
        address,
        _process: Some(nginx),
    })
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM by its own program: its worker ends with it. Who is gone already needs nothing.
        let _gone = Command::new("kill").arg(self.process.id().to_string()).status();
        let _gone = self.process.wait();
    }
}

/// One master in the foreground, one worker. The body is bytes of value 9, tabs, as every peer answers.
fn configured(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    let body = "\t".repeat(ANSWER_BODY_BYTES);
    format!(
        r#"daemon off;
worker_processes 1;
worker_cpu_affinity 1;
worker_rlimit_nofile 16384;
pid {folder}/pid;
error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 120s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    default_type application/cbor;
    server {{
        listen {address} backlog=4096;
        location ~ ^/api/v2/canister/[^/]+/call$ {{ return 200 "{body}"; }}
    }}
}}
"#
    )
}
