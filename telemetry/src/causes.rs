//! An error in one line.

use std::error::Error;
use std::fmt::Write;

use crate::limits::MAX_CAUSES;

/// The error and its causes, the outermost first.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    for cause in causes.take(MAX_CAUSES) {
        // A text never fails to grow.
        let _written = write!(text, ": {cause}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use neuroflow_kernel::{Cause, NameError, StartError};

    use super::*;

    #[test]
    fn a_chain_names_every_cause() {
        let inner = StartError::Name(NameError::Empty);
        let text = chain(&Cause::Error(Arc::new(inner)));
        let expected = format!("failed: the child's name isn't valid: {}", NameError::Empty);
        assert_eq!(text, expected);
    }
}
