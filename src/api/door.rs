//! Who comes in over HTTP: a bounded number at a time, and nobody who only stands in the door.
//!
//! Owns the listener. Promises: a connection too many waits until another one has gone; one on which nothing moves for
//! a while is closed, whether its caller does not send or does not read; and so is one whose question, dripping in byte
//! by byte, gets no answer in time. Knows nothing of what is asked.

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
/// How long a connection may be quiet.
const PATIENCE: Patience = Patience {
    // Longer than scrapers wait between two looks.
    quiet: Duration::from_secs(120),
    // Longer than any call takes.
    question: Duration::from_secs(60),
};

/// For how long a connection keeps its seat.
#[derive(Clone, Copy)]
struct Patience {
    /// Between an answer and the next question, and while a caller does not read.
    quiet: Duration,
    /// From the first byte of a question until the first one of its answer: what is read in between extends nothing.
    question: Duration,
}

/// A listener that lets in so many at a time.
pub struct Door {
    listener: TcpListener,
    seats: Arc<Semaphore>,
    patience: Patience,
}

/// A connection with its seat.
pub struct Guest {
    stream: TcpStream,
    _seat: OwnedSemaphorePermit,
    patience: Patience,
    /// A question has begun, and its answer has not.
    asking: bool,
    /// When its patience is over.
    until: Pin<Box<Sleep>>,
}

impl Door {
    pub fn new(listener: TcpListener) -> Door {
        Door::of(listener, CONNECTIONS_MAX, PATIENCE)
    }

    fn of(listener: TcpListener, connections_max: usize, patience: Patience) -> Door {
        Door { listener, seats: Arc::new(Semaphore::new(connections_max)), patience }
    }
}

impl Listener for Door {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        let seat = self.seats.clone().acquire_owned().await.expect("nobody closes the semaphore");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let until = Box::pin(sleep(self.patience.quiet));
        (Guest { stream, _seat: seat, patience: self.patience, asking: false, until }, peer)
    }

    fn local_addr(&self) -> Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Guest {
    /// The first byte of a question begins its time.
    fn has_read(&mut self) {
        if !std::mem::replace(&mut self.asking, true) {
            self.until.as_mut().reset(Instant::now() + self.patience.question);
        }
    }

    /// Who is answered, and reads it, has time again.
    fn has_written(&mut self) {
        self.asking = false;
        self.until.as_mut().reset(Instant::now() + self.patience.quiet);
    }

    /// Nothing moves: that is over when its time is.
    fn waits<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T>> {
        ready!(self.until.as_mut().poll(cx));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "nothing has moved on the connection for too long")))
    }

    fn written(&mut self, cx: &mut Context<'_>, moved: Poll<Result<usize>>) -> Poll<Result<usize>> {
        match moved {
            Poll::Ready(result) => {
                self.has_written();
                Poll::Ready(result)
            }
            Poll::Pending => self.waits(cx),
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        // Also where there is always something to read.
        if self.until.is_elapsed() {
            return self.waits(cx);
        }
        let filled = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > filled {
                    self.has_read();
                }
                Poll::Ready(result)
            }
            Poll::Pending => self.waits(cx),
        }
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, moved)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.written(cx, moved)
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

    const LONG: Patience = Patience { quiet: Duration::from_secs(600), question: Duration::from_secs(600) };

    /// A server behind such a door; its address.
    fn behind(connections_max: usize, patience: Patience) -> SocketAddr {
        let (told, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                let app: Router = Router::new().route("/", get(|| async { "here" }));
                axum::serve(Door::of(listener, connections_max, patience), app).await.unwrap();
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
        let address = behind(1, LONG);
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
        let address = behind(9, Patience { quiet: Duration::from_millis(50), ..LONG });
        let mut silent = std::net::TcpStream::connect(address).unwrap();
        silent.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert!(matches!(silent.read(&mut [0; 9]), Ok(0)), "it is closed, not kept");
    }
    #[test]
    fn a_question_that_drips_in_has_a_bounded_time() {
        let address = behind(9, Patience { question: Duration::from_millis(300), ..LONG });
        let mut caller = std::net::TcpStream::connect(address).unwrap();
        caller.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nhost: ").unwrap();
        let began = std::time::Instant::now();
        let closed = |read: std::io::Result<usize>| match read {
            Ok(read) => read == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        while caller.write_all(b"a").is_ok() && !closed(caller.read(&mut [0; 9])) {
            assert!(began.elapsed() < Duration::from_secs(60), "waited 60 s for the end of who only drips");
        }
    }

    #[test]
    fn who_was_answered_has_the_quiet_time_again() {
        let address = behind(9, Patience { question: Duration::from_millis(100), ..LONG });
        let mut caller = asking(address);
        assert!(answered(&mut caller));
        caller.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let silence = caller.read(&mut [0; 9]).map_err(|error| error.kind());
        assert!(matches!(silence, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{silence:?}");
        caller.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        assert!(answered(&mut caller));
    }
}
