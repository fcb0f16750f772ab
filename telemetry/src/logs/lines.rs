//! The way of a line to standard error: a bounded buffer, and one thread that writes.
//!
//! Whoever logs never waits for who reads the log. A reader that has stalled costs lines, which are
//! counted, and no request.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

use crate::limits::LOG_QUEUE_BYTES;

/// Takes lines and has them written in their order.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// There is something to write.
    came: Condvar,
    /// All that had come is written.
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Lines that found no room since the last look of who writes. Until then no other is taken, so
    /// that they are missing in one place.
    lost: u64,
    /// What was taken out isn't written yet.
    writing: bool,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    /// Begins the thread that writes to `out`. It ends with the process.
    pub(super) fn written_to(out: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let lines = Self(Arc::clone(&shared));
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&shared, out))?;
        Ok(lines)
    }

    /// Takes a line, or drops and counts it. Never waits.
    fn take(&self, line: &[u8]) {
        let mut waiting = self.0.waiting();
        if waiting.lost > 0 || waiting.bytes.len() + line.len() > LOG_QUEUE_BYTES {
            waiting.lost += 1;
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            // One that never fits is lost where nothing waits, and then somebody has to look.
            self.0.came.notify_one();
            return;
        }
        waiting.bytes.extend_from_slice(line);
        self.0.came.notify_one();
    }

    /// Lines that were dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all that was logged is written, or the time is over. Says whether it is.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let waiting = self.0.waiting();
        let open = |waiting: &mut Waiting| waiting.writing || !waiting.bytes.is_empty();
        match self.0.written.wait_timeout_while(waiting, within, open) {
            Ok((_waiting, timed)) => !timed.timed_out(),
            Err(_poisoned) => false,
        }
    }
}

fn write(shared: &Shared, mut out: impl Write) {
    let mut bytes = Vec::new();
    // Lines that standard error didn't take, and of which nothing is said yet.
    let mut refused = 0;
    let mut waiting = shared.waiting();
    loop {
        waiting.writing = false;
        if waiting.bytes.is_empty() {
            shared.written.notify_all();
        }
        let idle = |waiting: &mut Waiting| waiting.bytes.is_empty() && waiting.lost == 0;
        waiting = shared.came.wait_while(waiting, idle).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut bytes, &mut waiting.bytes);
        waiting.writing = true;
        let lost = std::mem::take(&mut waiting.lost);
        drop(waiting);
        if lost > 0 {
            // Behind what is about to be written, and so where they are missing.
            warn!(lines = lost, "log lines were lost, for standard error isn't read fast enough");
        }
        match out.write_all(&bytes).and_then(|()| out.flush()) {
            Ok(()) if refused > 0 => {
                warn!(lines = refused, "log lines were lost, for standard error didn't take them");
                refused = 0;
            }
            Ok(()) => {}
            // Some of them may be there; until it takes lines again, there is nowhere to say so.
            Err(_gone) => {
                let lines = bytes.split(|byte| *byte == b'\n').skip(1).count() as u64;
                refused += lines;
                shared.dropped.fetch_add(lines, Ordering::Relaxed);
            }
        }
        bytes.clear();
        waiting = shared.waiting();
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

/// A line comes in one piece.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Writes only what it's told to.
    struct Stalled {
        may: Receiver<()>,
        wrote: SyncSender<Vec<u8>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.may.recv().map_err(io::Error::other)?;
            self.wrote.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_no_time_and_keeps_the_order() {
        let (allow, may) = sync_channel(16);
        let (wrote, written) = sync_channel(16);
        let lines = Lines::written_to(Stalled { may, wrote }).unwrap();
        lines.take(b"first\n");
        while !lines.0.waiting().writing {
            std::thread::yield_now();
        }
        let line = [b'x'; 1024];
        let room = LOG_QUEUE_BYTES / line.len();
        for _ in 0..room + 3 {
            lines.take(&line);
        }
        lines.take(b"short\n");
        assert_eq!(lines.dropped(), 4, "a shorter one doesn't overtake");
        assert!(!lines.flush(Duration::from_millis(1)));
        allow.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), b"first\n");
        allow.send(()).unwrap();
        assert_eq!(written.recv().unwrap().len(), room * line.len());
        lines.take(b"last\n");
        allow.send(()).unwrap();
        assert_eq!(written.recv().unwrap(), b"last\n", "there is room again");
        assert!(lines.flush(Duration::from_secs(10)));
        assert_eq!(lines.dropped(), 4);
    }

    #[test]
    fn a_line_that_never_fits_costs_itself_alone() {
        let (wrote, written) = sync_channel(16);
        let lines = Lines::written_to(Full(wrote, false)).unwrap();
        lines.take(&vec![b'x'; LOG_QUEUE_BYTES + 1]);
        while lines.0.waiting().lost > 0 {
            std::thread::yield_now();
        }
        lines.take(b"next\n");
        assert_eq!(written.recv().unwrap(), b"next\n");
        assert_eq!(lines.dropped(), 1);
    }

    /// Has no room for the first piece.
    struct Full(SyncSender<Vec<u8>>, bool);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if std::mem::take(&mut self.1) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_find_no_room_where_they_are_written_are_counted() {
        let (wrote, written) = sync_channel(16);
        let lines = Lines::written_to(Full(wrote, true)).unwrap();
        lines.take(b"first\n");
        assert!(lines.flush(Duration::from_secs(10)));
        assert_eq!(lines.dropped(), 1);
        lines.take(b"next\n");
        assert_eq!(written.recv().unwrap(), b"next\n");
        assert!(lines.flush(Duration::from_secs(10)));
        assert_eq!(lines.dropped(), 1);
    }
}
