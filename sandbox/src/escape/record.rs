//! What a probe says: one line of text on standard output, found again among whatever else is
//! there. Pure.

use crate::errno::Errno;

/// What a probe says of its attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// It got what it wanted, or has prepared what is to be looked at.
    Succeeded(String),
    /// A call failed, and there is no way around it.
    Failed { call: String, errno: Errno },
}

impl Said {
    /// One line, the marks at both ends included.
    pub(crate) fn encode(&self) -> String {
        match self {
            Self::Succeeded(what) => format!("\n{MARK} succeeded {}\n", plain(what)),
            Self::Failed { call, errno } => {
                format!("\n{MARK} failed {} {}\n", errno.raw(), plain(call))
            }
        }
    }

    /// The last line that is one. The program inside is hostile only as far as its attempt is: it
    /// is this crate's own code, and what it says is believed.
    pub(crate) fn parse(output: &[u8]) -> Option<Self> {
        let mut lines = output.rsplit(|byte| *byte == b'\n');
        let rest = lines.find_map(|line| line.strip_prefix(MARK.as_bytes()))?;
        let text = std::str::from_utf8(rest).ok()?.strip_prefix(' ')?;
        if let Some(what) = text.strip_prefix("succeeded ") {
            return Some(Self::Succeeded(what.to_owned()));
        }
        let (errno, call) = text.strip_prefix("failed ")?.split_once(' ')?;
        Some(Self::Failed { call: call.to_owned(), errno: Errno::from_raw(errno.parse().ok()?) })
    }
}

/// Text that stays on its line.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect()
}

const MARK: &str = "neuroflow-probe:";
/// What a probe says is for a line of a table.
const MOST: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_among_noise() {
        for said in [
            Said::Succeeded("read 5 bytes".into()),
            Said::Failed { call: "open".into(), errno: Errno::from_raw(2) },
        ] {
            let mut bytes = b"y\ny\xFF\ny".to_vec();
            bytes.extend_from_slice(said.encode().as_bytes());
            assert_eq!(Said::parse(&bytes), Some(said));
        }
        for nonsense in ["", "neuroflow-probe:", "neuroflow-probe: failed x y", "neuroflow-probe: "]
        {
            assert_eq!(Said::parse(nonsense.as_bytes()), None);
        }
    }

    #[test]
    fn what_is_said_stays_on_its_line() {
        let said = Said::Succeeded("a\nneuroflow-probe: failed 1 b".into());
        let parsed = Said::parse(said.encode().as_bytes());
        assert!(matches!(parsed, Some(Said::Succeeded(_))));
    }
}
