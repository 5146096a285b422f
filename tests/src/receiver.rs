//! A receiver of alerts, as Alertmanager's API takes them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

/// Longest body that is read.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a request may take to arrive.
const REQUEST_MAX: Duration = Duration::from_secs(10);

/// Listens on loopback and keeps all that is posted to it, until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Requests that are still to be answered with an error.
    failures: AtomicU32,
    attempts: AtomicU32,
    is_over: AtomicBool,
    alerts: Mutex<Vec<Value>>,
}

impl Receiver {
    /// One that answers the first requests with 503.
    pub fn start(failures: u32) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared { failures: AtomicU32::new(failures), ..Shared::default() });
        let thread = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if shared.is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    // What is no request is nobody's concern here.
                    let _ = shared.answer(stream);
                }
            })
        };
        Receiver { address, shared, thread: Some(thread) }
    }

    /// Where alerts are to be posted.
    pub fn url(&self) -> String {
        format!("http://{}/api/v2/alerts", self.address)
    }

    /// All alerts that it took, oldest first.
    pub fn alerts(&self) -> Vec<Value> {
        self.shared.alerts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests came, those too that were answered with an error.
    pub fn attempts(&self) -> u32 {
        self.shared.attempts.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(REQUEST_MAX))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let (mut head, mut length) = (String::new(), 0_usize);
        while reader.read_line(&mut head)? > 2 {
            let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length.min(BODY_BYTES_MAX)];
        reader.read_exact(&mut body)?;
        self.attempts.fetch_add(1, Ordering::SeqCst);
        let fails =
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let alerts: Option<Vec<Value>> = serde_json::from_slice(&body).ok();
        let is_post = head.starts_with("POST /api/v2/alerts ");
        let status = match alerts {
            _ if fails.is_ok() => "503 Service Unavailable",
            Some(alerts) if is_post => {
                self.alerts.lock().unwrap_or_else(PoisonError::into_inner).extend(alerts);
                "200 OK"
            }
            _ => "400 Bad Request",
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
