//! Error numbers by name, errno(3). The numbers are those of x86-64 and aarch64.

use super::{Expected, integer};

/// Names in the order of their numbers, from 1; `-` is a number without one.
const NAMES: &str = "EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM \
    EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY \
    ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS \
    ENOTEMPTY ELOOP - ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI EL2HLT \
    EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT - EBFONT ENOSTR ENODATA ETIME ENOSR ENONET ENOPKG \
    EREMOTE ENOLINK EADV ESRMNT ECOMM EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD \
    EREMCHG ELIBACC ELIBBAD ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK \
    EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP \
    EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET \
    ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT \
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM ENAVAIL \
    EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED \
    EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON";

/// The largest that a system call can return.
const LARGEST: i128 = 4095;

/// `EPERM` or `1`.
pub(crate) fn number(text: &str) -> Result<u16, Expected> {
    const EXPECTED: Expected = Expected::Other("an error such as `EPERM`");
    if let Some(number) = integer(text) {
        let number = Some(number).filter(|number| (0..=LARGEST).contains(number));
        return number.and_then(|number| u16::try_from(number).ok()).ok_or(EXPECTED);
    }
    let name = match text {
        "EWOULDBLOCK" => "EAGAIN",
        "EDEADLOCK" => "EDEADLK",
        "ENOTSUP" => "EOPNOTSUPP",
        "-" => "",
        other => other,
    };
    let at = NAMES.split(' ').position(|known| known == name).ok_or(EXPECTED)?;
    u16::try_from(at + 1).map_err(|_| EXPECTED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn errors_have_the_numbers_of_linux() {
        for (name, expected) in [
            ("EPERM", Errno::PERM),
            ("ELOOP", Errno::LOOP),
            ("EBADSLT", Errno::BADSLT),
            ("EBFONT", Errno::BFONT),
            ("EOPNOTSUPP", Errno::OPNOTSUPP),
            ("ECONNREFUSED", Errno::CONNREFUSED),
            ("EHWPOISON", Errno::HWPOISON),
            ("ENOTSUP", Errno::NOTSUP),
        ] {
            assert_eq!(number(name).map(i32::from), Ok(expected.raw_os_error()), "{name}");
        }
        assert_eq!(number("38"), Ok(38));
        for bad in ["", "-", "EFLY", "4096", "eperm"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
