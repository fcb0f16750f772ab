//! The layout of records before they told who has made a configuration.

use neuroflow_kernel::{ParcelError, RawParcel, WireMessage};
use rkyv::{Archive, Serialize};

use super::{PushConfig, PushCreator, PushRecord};

#[derive(Archive, Serialize)]
#[cfg_attr(not(test), expect(dead_code, reason = "nobody writes it any more"))]
enum RecordOne {
    Config { config: PushConfig, caller: Option<String>, after: u64 },
    Reached { id: String, generation: u64 },
    Ended { id: String },
}

impl WireMessage for RecordOne {
    const NAME: &'static str = PushRecord::NAME;
    const VERSION: u16 = 1;
}

/// Reads a record of the older layout.
pub(super) fn upgrade(old: &RawParcel) -> Result<PushRecord, ParcelError> {
    Ok(match old.read::<RecordOne>()? {
        ArchivedRecordOne::Config { config, caller, after } => {
            let caller = caller.as_ref().map(ToString::to_string);
            PushRecord::Config {
                config: PushConfig::read(config),
                creator: Box::new(PushCreator::of_caller(caller.as_deref())),
                caller,
                after: after.to_native(),
            }
        }
        ArchivedRecordOne::Reached { id, generation } => {
            PushRecord::Reached { id: id.to_string(), generation: generation.to_native() }
        }
        ArchivedRecordOne::Ended { id } => PushRecord::Ended { id: id.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use neuroflow_kernel::Parcel;

    use super::super::PushBasis;
    use super::*;
    use crate::access::Principal;

    #[test]
    fn a_record_of_the_older_layout_has_the_creator_that_its_caller_names() {
        for (caller, principal) in [
            (None, Principal::anonymous()),
            (Some("token:ci"), Principal::token("ci", [""; 0])),
            (Some("user:a@b@https://id"), Principal::user("a@b", "https://id", [""; 0])),
        ] {
            let caller = caller.map(str::to_owned);
            let config = PushConfig::new("c", "https://example.org/");
            let old =
                RecordOne::Config { config: config.clone(), caller: caller.clone(), after: 7 };
            let read = upgrade(Parcel::archive(&old).unwrap().as_raw()).unwrap();
            let creator = Box::new(PushCreator::of(&principal, PushBasis::Read));
            assert_eq!(read, PushRecord::Config { config, caller, creator, after: 7 });
        }
        let id = "c".to_owned();
        for (old, new) in [
            (
                RecordOne::Reached { id: id.clone(), generation: 9 },
                PushRecord::Reached { id: id.clone(), generation: 9 },
            ),
            (RecordOne::Ended { id: id.clone() }, PushRecord::Ended { id }),
        ] {
            assert_eq!(upgrade(Parcel::archive(&old).unwrap().as_raw()).unwrap(), new);
        }
    }
}
