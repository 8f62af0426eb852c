//! System calls that the standard library does not offer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Connections that the kernel holds for us until they are accepted.
const BACKLOG: libc::c_int = 4096;

/// A counter that a sleeping event loop waits on.
#[derive(Debug)]
pub(crate) struct WakeFd(File);

impl WakeFd {
    /// A counter at zero.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the result is checked before it is owned.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        Ok(Self(File::from(own(fd)?)))
    }

    /// Ends the wait of the loop, or makes its next one return at once.
    pub(crate) fn wake(&self) {
        // The one possible failure is a counter at its maximum, and then the loop is being woken already.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    /// Sets the counter back to zero.
    pub(super) fn clear(&self) {
        let mut count = [0; 8];
        // Fails only if the counter is zero already.
        let _ = (&self.0).read(&mut count);
    }
}

impl AsRawFd for WakeFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Takes ownership of a descriptor that a system call returned, or reports its error.
pub(super) fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `result` of a system call as an `io::Result`.
pub(super) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Descriptors that this process may have open.
pub(super) fn open_files_max() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` lives across the call, which writes to it. On failure it stays zero.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur
}

/// A non-blocking listener. With `shared` several of them may listen on the same port and the kernel spreads the
/// clients among them; that also allows a stranger of the same user to join in, so callers first make sure with an
/// unshared one that the port is free.
pub(crate) fn listen(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: socket takes no pointers; the result is checked before it is owned.
    let socket = own(unsafe { libc::socket(family, kind, 0) })?;
    set_option(&socket, libc::SO_REUSEADDR)?;
    if shared {
        set_option(&socket, libc::SO_REUSEPORT)?;
    }
    bind(&socket, address)?;
    // SAFETY: the descriptor is open; listen takes no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(TcpListener::from(socket))
}

fn set_option(socket: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and length describe `on`, which lives across the call.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let result = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(v4.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            let length = size_of_val(&raw) as libc::socklen_t;
            // SAFETY: the pointer and length describe `raw`, which lives across the call.
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), length) }
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            let length = size_of_val(&raw) as libc::socklen_t;
            // SAFETY: the pointer and length describe `raw`, which lives across the call.
            unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), length) }
        }
    };
    check(result)?;
    Ok(())
}

/// Ends what is under way on a listener.
pub(super) fn shutdown(listener: &TcpListener) {
    // SAFETY: the descriptor is open; shutdown takes no pointers. It fails only if there is nothing to end.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR) };
}
