//! The layout of outcomes before they told of progress.

use neuroflow_kernel::{ParcelError, RawParcel, WireMessage};
use rkyv::{Archive, Serialize};

use super::{Outcome, Refused};

#[derive(Archive, Serialize)]
#[cfg_attr(not(test), expect(dead_code, reason = "nobody writes it any more"))]
enum OutcomeOne {
    Done { json: String },
    Refused(Refused),
}

impl WireMessage for OutcomeOne {
    const NAME: &'static str = Outcome::NAME;
    const VERSION: u16 = 1;
}

/// Reads an outcome of the older layout.
pub(super) fn upgrade(old: &RawParcel) -> Result<Outcome, ParcelError> {
    Ok(match old.read::<OutcomeOne>()? {
        ArchivedOutcomeOne::Done { json } => Outcome::Done { json: json.to_string() },
        ArchivedOutcomeOne::Refused(refused) => Outcome::Refused(refused.to_refused()),
    })
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::Parcel;

    use super::super::ArchivedOutcome;
    use super::*;

    #[test]
    fn an_outcome_of_the_older_layout_is_read() {
        let opened = |outcome: &OutcomeOne| {
            let old = Parcel::archive(outcome).unwrap();
            let old = old.as_raw();
            let received = RawParcel::new(old.message(), old.version(), old.as_bytes());
            received.open::<Outcome>().unwrap()
        };
        let done = opened(&OutcomeOne::Done { json: "[1]".to_owned() });
        assert!(matches!(done.get(), ArchivedOutcome::Done { json } if json == "[1]"));
        let refused = opened(&OutcomeOne::Refused(Refused::Busy));
        let ArchivedOutcome::Refused(refused) = refused.get() else { panic!("another outcome") };
        assert_eq!(refused.to_refused(), Refused::Busy);
    }
}
