//! The header of a vsock packet (virtio 1.3, section 5.10.6).

/// Bytes of a header on the wire: packed, little-endian.
pub(super) const HEADER_LEN: usize = 44;

/// The host's CID (VMADDR_CID_HOST).
pub(super) const HOST_CID: u64 = 2;

/// VIRTIO_VSOCK_TYPE_STREAM. The other type, SEQPACKET (2), is a feature that we do not offer.
pub(super) const TYPE_STREAM: u16 = 1;

/// VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE: the sender will receive no more.
pub(super) const NO_RECEIVE: u32 = 1;
/// VIRTIO_VSOCK_SHUTDOWN_F_SEND: the sender will send no more.
pub(super) const NO_SEND: u32 = 2;
/// Both: the sender is done with the connection.
pub(super) const NO_MORE: u32 = NO_RECEIVE | NO_SEND;

/// What a packet is for (VIRTIO_VSOCK_OP_*).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Op {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Op {
    pub(super) fn from_wire(op: u16) -> Option<Self> {
        Some(match op {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// A header, as it came or as it goes: `kind` and `op` may be anything, `len` is not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    pub(super) src_cid: u64,
    pub(super) dst_cid: u64,
    pub(super) src_port: u32,
    pub(super) dst_port: u32,
    /// Bytes of payload that follow.
    pub(super) len: u32,
    pub(super) kind: u16,
    pub(super) op: u16,
    pub(super) flags: u32,
    /// The sender's receive buffer, in bytes.
    pub(super) buf_alloc: u32,
    /// Bytes that left the sender's receive buffer so far, modulo 2^32.
    pub(super) fwd_cnt: u32,
}

impl Header {
    pub(super) fn decode(bytes: &[u8; HEADER_LEN]) -> Self {
        Self {
            src_cid: u64::from_le_bytes(field(bytes, 0)),
            dst_cid: u64::from_le_bytes(field(bytes, 8)),
            src_port: u32::from_le_bytes(field(bytes, 16)),
            dst_port: u32::from_le_bytes(field(bytes, 20)),
            len: u32::from_le_bytes(field(bytes, 24)),
            kind: u16::from_le_bytes(field(bytes, 28)),
            op: u16::from_le_bytes(field(bytes, 30)),
            flags: u32::from_le_bytes(field(bytes, 32)),
            buf_alloc: u32::from_le_bytes(field(bytes, 36)),
            fwd_cnt: u32::from_le_bytes(field(bytes, 40)),
        }
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..8].copy_from_slice(&self.src_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.dst_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.src_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.dst_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.op.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buf_alloc.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.fwd_cnt.to_le_bytes());
        bytes
    }

    /// The reset that answers this packet; None for a reset, which is never answered.
    pub(super) fn refusal(&self) -> Option<Self> {
        (self.op != Op::Reset as u16).then(|| Self {
            src_cid: self.dst_cid,
            dst_cid: self.src_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            // An unknown type is answered in kind, as Linux does.
            kind: self.kind,
            op: Op::Reset as u16,
            ..Self::default()
        })
    }
}

/// `N` bytes from `at`; both are constants that lie within the header.
fn field<const N: usize>(bytes: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_layout_of_the_standard() {
        let header = Header {
            src_cid: 0x0102_0304_0506_0708,
            dst_cid: 2,
            src_port: 0x1112_1314,
            dst_port: 3000,
            len: 5,
            kind: 1,
            op: 5,
            flags: 3,
            buf_alloc: 0x4_0000,
            fwd_cnt: 0xffff_fffe,
        };
        let bytes = header.encode();
        assert_eq!(bytes[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(bytes[16..20], [0x14, 0x13, 0x12, 0x11]);
        assert_eq!(bytes[28..32], [1, 0, 5, 0]);
        assert_eq!(bytes[40..], [0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(Header::decode(&bytes), header);
    }

    #[test]
    fn a_refusal_goes_back_and_is_never_refused() {
        let asked = Header {
            src_port: 7,
            dst_port: 8,
            src_cid: 3,
            dst_cid: 2,
            kind: 9,
            op: 1,
            ..Default::default()
        };
        let refusal = asked.refusal().unwrap();
        assert_eq!((refusal.src_port, refusal.dst_port, refusal.src_cid), (8, 7, 2));
        assert_eq!((refusal.kind, refusal.op), (9, Op::Reset as u16));
        assert_eq!(refusal.refusal(), None);
    }

    #[test]
    fn every_op_of_the_standard_is_known_and_no_other() {
        for op in 0..=u16::MAX {
            match Op::from_wire(op) {
                Some(known) => assert_eq!(known as u16, op),
                None => assert!(op == 0 || op > 7),
            }
        }
    }
}
