//! Who comes in over HTTP: a bounded number at a time, and nobody who only stands in the door.
//!
//! Owns the listener. Promises: a connection too many waits until another one has gone; one on which nothing moves for
//! a while is closed, whether its caller does not send or does not read. Knows nothing of what is asked.

use axum::serve::Listener;
use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep};

/// Scrapers, probes, some people and their scripts.
const CONNECTIONS_MAX: usize = 256;
/// Longer than any call takes, and than scrapers wait between two looks.
const QUIET: Duration = Duration::from_secs(120);

/// A listener that lets in so many at a time.
pub struct Door {
    listener: TcpListener,
    seats: Arc<Semaphore>,
    quiet: Duration,
}

/// A connection with its seat.
pub struct Guest {
    stream: TcpStream,
    _seat: OwnedSemaphorePermit,
    quiet: Duration,
    /// When it has been quiet for too long.
    until: Pin<Box<Sleep>>,
}

impl Door {
    pub fn new(listener: TcpListener) -> Door {
        Door::of(listener, CONNECTIONS_MAX, QUIET)
    }

    fn of(listener: TcpListener, connections_max: usize, quiet: Duration) -> Door {
        Door { listener, seats: Arc::new(Semaphore::new(connections_max)), quiet }
    }
}

impl Listener for Door {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        let seat = self.seats.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let until = Box::pin(sleep(self.quiet));
        (Guest { stream, _seat: seat, quiet: self.quiet, until }, peer)
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Guest {
    /// What moved counts; what did not is over when it has been quiet for too long.
    fn watched<T>(&mut self, cx: &mut Context<'_>, moved: Poll<Result<T>>) -> Poll<Result<T>> {
        if moved.is_ready() {
            self.until.as_mut().reset(Instant::now() + self.quiet);
            return moved;
        }
        ready!(self.until.as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "nothing has moved on the connection for too long")))
    }
}

impl AsyncRead for Guest {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.watched(cx, moved)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(cx, moved)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.watched(cx, moved)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use std::io::{Read, Write};

    /// A server behind such a door; its address.
    fn behind(connections_max: usize, quiet: Duration) -> SocketAddr {
        let (told, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let app: Router = Router::new().route("/", get(|| async { "here" }));
                axum::serve(Door::of(listener, connections_max, quiet), app).await.unwrap();
            });
        });
        address.recv().unwrap()
    }

    /// A caller who asks and keeps the connection.
    fn asking(address: SocketAddr) -> std::net::TcpStream {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        stream
    }

    fn answered(stream: &mut std::net::TcpStream) -> bool {
        let mut answer = [0; 1024];
        stream.read(&mut answer).is_ok_and(|len| answer[..len].ends_with(b"here"))
    }

    #[test]
    fn the_one_too_many_waits_until_another_has_gone() {
        let address = behind(1, Duration::from_secs(600));
        let mut first = asking(address);
        assert!(answered(&mut first));
        let mut second = asking(address);
        second.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        assert!(!answered(&mut second), "there is one seat");
        drop(first);
        second.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert!(answered(&mut second));
    }

    #[test]
    fn a_connection_on_which_nothing_moves_is_closed() {
        let address = behind(9, Duration::from_millis(50));
        let mut silent = std::net::TcpStream::connect(address).unwrap();
        silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert!(matches!(silent.read(&mut [0; 9]), Ok(0)), "it is closed, not kept");
    }
}
