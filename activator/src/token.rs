//! What an event of the loop is about, packed into mio's token.

use activator::manifest::UnitId;

/// One source of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// The signalfd.
    Signals,
    /// The pair with logd.
    Link,
    /// The notify socket of a service.
    Notify(UnitId),
    /// cgroup.events of a service.
    Group(UnitId),
    /// A main process that need not be a child of ours.
    Adopted(UnitId),
    /// An fd that a service has stored.
    Stored(UnitId),
    /// A child of a service that is to tell of its exec.
    Exec(UnitId),
    /// A listener of a socket unit.
    Listener(UnitId, u16),
}

impl From<Token> for mio::Token {
    fn from(token: Token) -> Self {
        let pack = |kind: usize, UnitId(unit), listener: u16| {
            mio::Token(kind << 32 | usize::from(unit) << 16 | usize::from(listener))
        };
        match token {
            Token::Signals => pack(0, UnitId(0), 0),
            Token::Link => pack(1, UnitId(0), 0),
            Token::Notify(unit) => pack(2, unit, 0),
            Token::Group(unit) => pack(3, unit, 0),
            Token::Listener(unit, listener) => pack(4, unit, listener),
            Token::Adopted(unit) => pack(5, unit, 0),
            Token::Stored(unit) => pack(6, unit, 0),
            Token::Exec(unit) => pack(7, unit, 0),
        }
    }
}

impl From<mio::Token> for Token {
    fn from(mio::Token(token): mio::Token) -> Self {
        let unit = UnitId((token >> 16) as u16);
        match token >> 32 {
            0 => Self::Signals,
            1 => Self::Link,
            2 => Self::Notify(unit),
            3 => Self::Group(unit),
            5 => Self::Adopted(unit),
            6 => Self::Stored(unit),
            7 => Self::Exec(unit),
            _ => Self::Listener(unit, token as u16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let unit = UnitId(65535);
        let all = [
            Token::Signals,
            Token::Link,
            Token::Notify(unit),
            Token::Group(unit),
            Token::Adopted(unit),
            Token::Stored(unit),
            Token::Exec(unit),
            Token::Listener(unit, 65535),
            Token::Listener(UnitId(0), 1),
        ];
        for token in all {
            assert_eq!(Token::from(mio::Token::from(token)), token);
        }
    }
}
