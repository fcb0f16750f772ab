//! The layout of a cell's events before they told of stalls, stages and egress.

use neuroflow_kernel::{ParcelError, RawParcel, WireMessage};
use rkyv::{Archive, Serialize};

use super::{ArchivedStream, Ended, ExecEvent, ExecRefused, How, Stream};

#[derive(Archive, Serialize)]
#[cfg_attr(not(test), expect(dead_code, reason = "nobody writes it any more"))]
enum EventTwo {
    Output { stream: Stream, bytes: Vec<u8> },
    Ended(EndedTwo),
    Refused(ExecRefused),
}

#[derive(Archive, Serialize)]
struct EndedTwo {
    how: How,
    stdout_truncated: bool,
    stderr_truncated: bool,
    user_ns: u64,
    system_ns: u64,
    peak_resident_bytes: u64,
    start_ns: u64,
    level: String,
    layers: Vec<String>,
    degraded: Vec<String>,
    denied: Vec<String>,
    peak_group_bytes: u64,
    prepared: bool,
}

impl WireMessage for EventTwo {
    const NAME: &'static str = ExecEvent::NAME;
    const VERSION: u16 = 2;
}

/// Reads an event of an older layout.
pub(super) fn upgrade(old: &RawParcel) -> Result<ExecEvent, ParcelError> {
    Ok(match old.read::<EventTwo>()? {
        ArchivedEventTwo::Output { stream, bytes } => ExecEvent::Output {
            stream: match stream {
                ArchivedStream::Stdout => Stream::Stdout,
                ArchivedStream::Stderr => Stream::Stderr,
            },
            bytes: bytes.to_vec(),
        },
        ArchivedEventTwo::Ended(ended) => ExecEvent::Ended(upgrade_end(ended)),
        ArchivedEventTwo::Refused(refused) => ExecEvent::Refused(refused.into()),
    })
}

fn upgrade_end(ended: &ArchivedEndedTwo) -> Ended {
    let texts = |list: &rkyv::Archived<Vec<String>>| list.iter().map(ToString::to_string).collect();
    Ended {
        how: (&ended.how).into(),
        stdout_truncated: ended.stdout_truncated,
        stderr_truncated: ended.stderr_truncated,
        user_ns: ended.user_ns.to_native(),
        system_ns: ended.system_ns.to_native(),
        peak_resident_bytes: ended.peak_resident_bytes.to_native(),
        start_ns: ended.start_ns.to_native(),
        level: ended.level.to_string(),
        layers: texts(&ended.layers),
        degraded: texts(&ended.degraded),
        denied: texts(&ended.denied),
        peak_group_bytes: ended.peak_group_bytes.to_native(),
        prepared: ended.prepared,
        throttled_ns: None,
        cpu_stalled_ns: None,
        memory_stalled_ns: None,
        io_stalled_ns: None,
        stages_ns: Vec::new(),
        egress_allowed: 0,
        egress_denied: 0,
    }
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::Parcel;

    use super::{super::ArchivedExecEvent, *};

    #[test]
    fn an_event_of_the_older_layout_is_read() {
        let end = EndedTwo {
            how: How::Exited(3),
            stdout_truncated: true,
            stderr_truncated: false,
            user_ns: 1,
            system_ns: 2,
            peak_resident_bytes: 3,
            start_ns: 4,
            level: "strict".to_owned(),
            layers: vec!["own session".to_owned()],
            degraded: Vec::new(),
            denied: vec!["mount".to_owned()],
            peak_group_bytes: 5,
            prepared: true,
        };
        let opened = |event: &EventTwo| {
            let old = Parcel::archive(event).unwrap();
            let old = old.as_raw();
            let received = RawParcel::new(old.message(), old.version(), old.as_bytes());
            received.open::<ExecEvent>().unwrap()
        };
        let event = opened(&EventTwo::Ended(end));
        let ArchivedExecEvent::Ended(ended) = event.get() else { panic!("another event") };
        assert_eq!(How::from(&ended.how), How::Exited(3));
        assert_eq!((ended.user_ns.to_native(), ended.peak_group_bytes.to_native()), (1, 5));
        assert_eq!((ended.level.as_str(), ended.denied.len()), ("strict", 1));
        assert!(ended.stdout_truncated && ended.prepared && ended.throttled_ns.is_none());
        let event = opened(&EventTwo::Output { stream: Stream::Stderr, bytes: b"e".to_vec() });
        let ArchivedExecEvent::Output { stream: ArchivedStream::Stderr, bytes } = event.get()
        else {
            panic!("another event");
        };
        assert_eq!(bytes.as_slice(), b"e");
        let event = opened(&EventTwo::Refused(ExecRefused::Stopping));
        let ArchivedExecEvent::Refused(refused) = event.get() else { panic!("another event") };
        assert_eq!(ExecRefused::from(refused), ExecRefused::Stopping);
    }
}
