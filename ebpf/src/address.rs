//! One form for both families, so that a map needs one kind of key: IPv6, with an IPv4 address in the mapped
//! range `::ffff:0:0/96` (RFC 4291, section 2.5.5.2).

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bits of an IPv4-mapped address before the IPv4 address itself.
pub const V4_MAPPED_PREFIX_BITS: u32 = 96;

/// An address of either family, in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Address([u8; 16]);

impl Address {
    /// `::`, which stands for "any address" in a service key. No packet carries it: 0.0.0.0 is `::ffff:0:0`.
    pub const ANY: Self = Self([0; 16]);

    /// From the four bytes of an IPv4 header.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// From the sixteen bytes of an IPv6 header.
    #[inline(always)]
    #[must_use]
    pub const fn from_v6(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The sixteen bytes.
    #[inline(always)]
    #[must_use]
    pub const fn octets(self) -> [u8; 16] {
        self.0
    }

    /// As the standard library has it; a mapped address becomes IPv4 again.
    #[must_use]
    pub const fn to_ip(self) -> IpAddr {
        Ipv6Addr::from_octets(self.0).to_canonical()
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_v4(address.octets())
    }
}

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        Self(address.octets())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.to_ip(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_come_back_as_they_went_in() {
        for address in [
            IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)),
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7)),
        ] {
            assert_eq!(Address::from(address).to_ip(), address);
        }
    }

    #[test]
    fn no_ipv4_address_is_taken_for_any() {
        assert_ne!(Address::from(Ipv4Addr::UNSPECIFIED), Address::ANY);
    }
}
