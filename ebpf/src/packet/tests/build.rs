//! Builds packets for tests, valid unless told otherwise. The verdict tests of `dataplane` include this file too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

/// What a packet is made of. Every field that the parser looks at can be set on its own, to lie.
#[derive(Clone, Debug)]
pub struct PacketBuilder {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    /// Ethertype of each tag, outermost first.
    pub vlan_tags: Vec<u16>,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IPv4 only; a multiple of four.
    pub ip_options: Vec<u8>,
    /// IPv4 flags and fragment offset.
    pub ip_fragment: u16,
    /// IPv6 only: an extension header of this kind, 8 bytes long.
    pub ip_extension: Option<u8>,
    pub protocol: u8,
    pub source_port: u16,
    pub destination_port: u16,
    pub tcp_flags: u8,
    /// A multiple of four.
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
    /// Bytes of Ethernet padding.
    pub padding: usize,
    /// In place of the right ones.
    pub ethertype: Option<u16>,
    pub ip_version: Option<u8>,
    pub ip_header_words: Option<u8>,
    pub ip_length: Option<u16>,
    pub udp_length: Option<u16>,
    pub tcp_header_words: Option<u8>,
}

impl PacketBuilder {
    /// A UDP datagram with an eight-byte payload.
    pub fn udp(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        Self {
            destination_mac: [2, 0, 0, 0, 0, 1],
            source_mac: [2, 0, 0, 0, 0, 2],
            vlan_tags: Vec::new(),
            source: source.0,
            destination: destination.0,
            ip_options: Vec::new(),
            ip_fragment: 0x4000,
            ip_extension: None,
            protocol: 17,
            source_port: source.1,
            destination_port: destination.1,
            tcp_flags: 0,
            tcp_options: Vec::new(),
            payload: b"payload!".to_vec(),
            padding: 0,
            ethertype: None,
            ip_version: None,
            ip_header_words: None,
            ip_length: None,
            udp_length: None,
            tcp_header_words: None,
        }
    }

    /// A TCP segment.
    pub fn tcp(source: (IpAddr, u16), destination: (IpAddr, u16), flags: u8) -> Self {
        Self { protocol: 6, tcp_flags: flags, ..Self::udp(source, destination) }
    }

    /// The bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut packet = [self.destination_mac, self.source_mac].concat();
        for tag in &self.vlan_tags {
            packet.extend(tag.to_be_bytes());
            packet.extend(5_u16.to_be_bytes());
        }
        let transport = self.transport();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                packet.extend(self.ethertype.unwrap_or(0x0800).to_be_bytes());
                packet.extend(self.ipv4(source, destination, transport.len()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                packet.extend(self.ethertype.unwrap_or(0x86dd).to_be_bytes());
                packet.extend(self.ipv6(source, destination, transport.len()));
            }
            _ => panic!("both addresses are of one family"),
        }
        packet.extend(transport);
        packet.extend(core::iter::repeat_n(0, self.padding));
        packet
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, payload_bytes: usize) -> Vec<u8> {
        let header_bytes = 20 + self.ip_options.len();
        let words = self.ip_header_words.unwrap_or((header_bytes / 4) as u8);
        let length = self.ip_length.unwrap_or((header_bytes + payload_bytes) as u16);
        let mut header = std::vec![self.ip_version.unwrap_or(4) << 4 | words, 0];
        header.extend(length.to_be_bytes());
        header.extend([0, 1]);
        header.extend(self.ip_fragment.to_be_bytes());
        header.extend([64, self.protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(&self.ip_options);
        header
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, payload_bytes: usize) -> Vec<u8> {
        let extension_bytes = if self.ip_extension.is_some() { 8 } else { 0 };
        let length = self.ip_length.unwrap_or((extension_bytes + payload_bytes) as u16);
        let mut header = std::vec![self.ip_version.unwrap_or(6) << 4, 0, 0, 0];
        header.extend(length.to_be_bytes());
        header.extend([self.ip_extension.unwrap_or(self.protocol), 64]);
        header.extend(source.octets());
        header.extend(destination.octets());
        if self.ip_extension.is_some() {
            header.extend([self.protocol, 0, 0, 0, 0, 0, 0, 0]);
        }
        header
    }

    fn transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(self.source_port.to_be_bytes());
        bytes.extend(self.destination_port.to_be_bytes());
        match self.protocol {
            17 => {
                let length = self.udp_length.unwrap_or((8 + self.payload.len()) as u16);
                bytes.extend(length.to_be_bytes());
                bytes.extend([0xab, 0xcd]);
            }
            6 => {
                let words = self.tcp_header_words.unwrap_or((5 + self.tcp_options.len() / 4) as u8);
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, words << 4, self.tcp_flags, 0xff, 0xff, 0, 0, 0, 0]);
                bytes.extend(&self.tcp_options);
            }
            _ => {}
        }
        bytes.extend(&self.payload);
        bytes
    }
}
