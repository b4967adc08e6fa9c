//! Why a request was refused.

/// Why a request, or a connection, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It needs credentials, and came without.
    NoCredentials,
    /// Its credentials are not known.
    BadCredentials,
    /// Its credentials are good for other things.
    Role,
    /// It would change something, and comes from a web page of someone else's.
    CrossSite,
    /// A worker that did not prove its membership, or whose version is denied.
    Membership,
    /// Too many passwords wait to be checked.
    Busy,
    /// A connection without the TLS, or the client's certificate, that is asked for.
    Tls,
    /// A connection whose request did not come in time, or is none.
    Connection,
    /// Its body is too long, took too long, or did not come.
    Body,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NoCredentials,
        Self::BadCredentials,
        Self::Role,
        Self::CrossSite,
        Self::Membership,
        Self::Busy,
        Self::Tls,
        Self::Connection,
        Self::Body,
    ];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::BadCredentials => "bad_credentials",
            Self::Role => "role",
            Self::CrossSite => "cross_site",
            Self::Membership => "membership",
            Self::Busy => "busy",
            Self::Tls => "tls",
            Self::Connection => "connection",
            Self::Body => "body",
        }
    }
}
