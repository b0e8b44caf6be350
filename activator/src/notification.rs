//! What a service says of itself with sd_notify(3). PID 1 reads it: nothing here allocates.

/// One message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Notification {
    /// `READY=1`
    pub ready: bool,
    /// `MAINPID=`; whether the sender may name that process is for the reader to check.
    pub main_pid: Option<u32>,
    /// `EXTEND_TIMEOUT_USEC=`
    pub extend_timeout_us: Option<u64>,
}

impl Notification {
    /// Reads one message: lines of `NAME=value`. What is not known is left out, as sd_notify(3)
    /// promises.
    pub fn parse(text: &[u8]) -> Self {
        let mut notification = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            if line == b"READY=1" {
                notification.ready = true;
            } else if let Some(pid) = line.strip_prefix(b"MAINPID=") {
                let pid = number(pid).and_then(|pid| u32::try_from(pid).ok());
                notification.main_pid = pid.filter(|pid| *pid > 1);
            } else if let Some(extend) = line.strip_prefix(b"EXTEND_TIMEOUT_USEC=") {
                notification.extend_timeout_us = number(extend);
            }
        }
        notification
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_are_read_and_others_left_out() {
        let said =
            Notification::parse(b"STATUS=up\nREADY=1\nMAINPID=42\nEXTEND_TIMEOUT_USEC=5000000\n");
        assert_eq!(
            said,
            Notification { ready: true, main_pid: Some(42), extend_timeout_us: Some(5_000_000) }
        );
    }

    #[test]
    fn nonsense_says_nothing() {
        for text in
            [&b""[..], b"\n\n", b"READY=0", b"MAINPID=1", b"MAINPID=-3", b"MAINPID=x", b"\xff=1"]
        {
            assert_eq!(Notification::parse(text), Notification::default(), "{text:?}");
        }
    }
}
