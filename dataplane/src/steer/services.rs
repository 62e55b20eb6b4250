//! What is steered: services and their allow-lists, brought into the maps so that no packet ever meets a service
//! whose allow-list is not complete.
//!
//! A service whose sources change gets a new number: its sources are written under that first, then its keys are
//! switched over (each in one step), then the old number's sources go. So at any moment a packet meets the old
//! allow-list or the new one, and a failure half-way leaves the old. A packet that is just being looked at goes on by
//! what it has read so far: nothing that it may have read is taken away, or used anew by the kernel, before it is done
//! ([`Services::settle`]).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use dataplane_ebpf::address::{Address, V4_MAPPED_PREFIX_BITS};
use dataplane_ebpf::flow::{PROTOCOL_TCP, PROTOCOL_UDP};
use dataplane_ebpf::layout::{
    PORTS, PortValue, SERVICES, SERVICES_MAX, SOURCE_ALLOWED, SOURCE_DENIED, SOURCES, SOURCES_MAX,
    ServiceKey, ServiceValue, SourceKey,
};
use ipnet::{IpNet, Ipv6Net};

use super::maps::{Maps, Plain};
use super::{SteerError, kernel};
use crate::config::{ListenerConfig, ListenerProtocol};

/// Transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceProtocol {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl ServiceProtocol {
    const fn number(self) -> u8 {
        match self {
            Self::Udp => PROTOCOL_UDP,
            Self::Tcp => PROTOCOL_TCP,
        }
    }

    const fn label(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// One service: where it listens and whom it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceRule {
    /// Transport protocol.
    pub protocol: ServiceProtocol,
    /// Port.
    pub port: u16,
    /// Our addresses; empty is any destination address, other hosts' too, as a forwarding or promiscuous NIC sees them:
    /// [`ServiceRule::on_this_host`] names this host's instead.
    pub addresses: Vec<IpAddr>,
    /// Sources that are served; everybody else's packets are dropped.
    pub allow: Vec<IpNet>,
}

impl ServiceRule {
    /// The rule with this host's addresses in the place of any: the packets that a kernel socket on the wildcard address
    /// would get. `None` while the host has no address.
    #[must_use]
    pub fn on_this_host(&self, local: &BTreeSet<IpAddr>) -> Option<Self> {
        let mut rule = self.clone();
        if rule.addresses.is_empty() {
            rule.addresses.extend(local);
        }
        (!rule.addresses.is_empty()).then_some(rule)
    }
}

impl From<&ListenerConfig> for ServiceRule {
    fn from(listener: &ListenerConfig) -> Self {
        Self {
            protocol: match listener.protocol {
                ListenerProtocol::Udp => ServiceProtocol::Udp,
                ListenerProtocol::Tcp => ServiceProtocol::Tcp,
            },
            port: listener.port,
            addresses: listener.addresses.clone(),
            allow: listener.allow.clone(),
        }
    }
}

impl fmt::Display for ServiceRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} port {}", self.protocol.label(), self.port)
    }
}

/// A prefix of the allow-list trie, behind the service's number: bits, and the bytes they are taken from.
type Prefix = (u32, [u8; 16]);
/// What the trie says of each prefix.
type Sources = BTreeMap<Prefix, u8>;
/// A service's key in an order of its own, so that tests see the same one every time.
type KeyOrder = (u8, u16, [u8; 16]);

/// A rule as the maps want it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Desired {
    keys: BTreeSet<KeyOrder>,
    sources: Sources,
}

impl Desired {
    fn of(rule: &ServiceRule) -> Result<Self, SteerError> {
        let fail = |problem: String| Err(SteerError::Service { service: rule.to_string(), problem });
        if rule.port == 0 {
            return fail("port 0 cannot be served".to_owned());
        }
        if rule.allow.is_empty() {
            return fail(
                "it has no allow-list, so nobody could use it; name the networks it serves".to_owned(),
            );
        }
        if let Some(address) = rule.addresses.iter().find(|address| address.is_unspecified()) {
            return fail(format!(
                "{address} is no destination of a packet; leave the addresses empty for any"
            ));
        }
        let key = |address: Address| (rule.protocol.number(), rule.port, address.octets());
        let keys = if rule.addresses.is_empty() {
            BTreeSet::from([key(Address::ANY)])
        } else {
            rule.addresses.iter().map(|&address| key(address.into())).collect()
        };
        Ok(Self { keys, sources: sources(&rule.allow) })
    }
}

/// The trie's prefixes for an allow-list.
fn sources(allow: &[IpNet]) -> Sources {
    let mut sources = Sources::new();
    for network in allow {
        let network = network.trunc();
        let (bits, address) = match network {
            IpNet::V4(network) => {
                (V4_MAPPED_PREFIX_BITS + u32::from(network.prefix_len()), Address::from(network.network()))
            }
            IpNet::V6(network) => {
                if holds_mapped_range(&network) {
                    // Whoever allows all of IPv6 does not mean IPv4, though its mapped range lies inside.
                    let mapped = Address::from_v4([0; 4]).octets();
                    sources.entry((V4_MAPPED_PREFIX_BITS, mapped)).or_insert(SOURCE_DENIED);
                }
                (u32::from(network.prefix_len()), Address::from(network.network()))
            }
        };
        sources.insert((bits, address.octets()), SOURCE_ALLOWED);
    }
    sources
}

/// True for an IPv6 network that is larger than the IPv4-mapped range and holds it.
fn holds_mapped_range(network: &Ipv6Net) -> bool {
    let mapped = std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    u32::from(network.prefix_len()) < V4_MAPPED_PREFIX_BITS && network.contains(&mapped)
}

/// What the maps hold.
#[derive(Debug, Default)]
struct Current {
    keys: BTreeMap<KeyOrder, u32>,
    sources: BTreeMap<u32, Sources>,
}

impl Current {
    fn read(maps: &Maps) -> Result<Self, SteerError> {
        let mut current = Self::default();
        for entry in maps.services.iter() {
            let (Plain(key), Plain(value)) = entry.map_err(|source| SteerError::map(SERVICES, source))?;
            current.keys.insert((key.protocol, key.port, key.address.octets()), value.id);
        }
        for entry in maps.sources.iter() {
            let (key, value) = entry.map_err(|source| SteerError::map(SOURCES, source))?;
            let Plain(source) = key.data();
            let bits = key.prefix_len().saturating_sub(SourceKey::SERVICE_BITS);
            let service = u32::from_be_bytes(source.service);
            current.sources.entry(service).or_default().insert((bits, source.address.octets()), value);
        }
        Ok(current)
    }

    /// A number no service has or had as far as the maps tell.
    fn highest_id(&self) -> u32 {
        self.keys.values().chain(self.sources.keys()).copied().max().unwrap_or(0)
    }

    fn source_count(&self) -> usize {
        self.sources.values().map(BTreeMap::len).sum()
    }
}

/// Brings services into the maps.
pub(super) struct Services {
    /// The highest number given so far; each is given once.
    last_id: u32,
    /// True when a packet under way may have read what was changed since.
    unsettled: bool,
}

impl Services {
    pub(super) fn new(maps: &Maps) -> Result<Self, SteerError> {
        Ok(Self { last_id: Current::read(maps)?.highest_id(), unsettled: false })
    }

    /// Makes the maps hold exactly these rules.
    pub(super) fn set(&mut self, maps: &mut Maps, rules: &[ServiceRule]) -> Result<(), SteerError> {
        let desired = desired(rules)?;
        let current = Current::read(maps)?;
        let mut in_use = BTreeSet::new();
        let mut to_write = Vec::new();
        let mut removed = false;
        for rule in desired {
            // Unchanged sources keep their number, whichever of its keys come and go.
            let same = |id: &u32| !in_use.contains(id) && current.sources.get(id) == Some(&rule.sources);
            match rule.keys.iter().filter_map(|key| current.keys.get(key).copied()).find(same) {
                Some(id) => {
                    in_use.insert(id);
                    to_write.push((id, false, rule));
                }
                None => {
                    self.last_id += 1;
                    to_write.push((self.last_id, true, rule));
                }
            }
        }
        check_room(&current, &to_write)?;
        for (id, _, rule) in to_write.iter().filter(|(_, new, _)| *new) {
            write_sources(maps, *id, &rule.sources)?;
        }
        for (id, _, rule) in &to_write {
            for key in rule.keys.iter().filter(|key| current.keys.get(*key) != Some(id)) {
                // The kernel gives a replaced entry's memory to the next one at once: who still reads there would take
                // that one's number for the one it looked for.
                self.settle()?;
                self.unsettled = current.keys.contains_key(key);
                maps.services
                    .insert(Plain(service_key(key)), Plain(ServiceValue { id: *id }), 0)
                    .map_err(|source| SteerError::map(SERVICES, source))?;
            }
        }
        let wanted: BTreeMap<KeyOrder, u32> =
            to_write.iter().flat_map(|(id, _, rule)| rule.keys.iter().map(|key| (*key, *id))).collect();
        write_ports(maps, &current, &wanted)?;
        self.unsettled = true;
        for key in current.keys.keys().filter(|key| !wanted.contains_key(key)) {
            self.settle()?;
            maps.services
                .remove(&Plain(service_key(key)))
                .map_err(|source| SteerError::map(SERVICES, source))?;
            removed = true;
        }
        self.unsettled |= removed;
        for (id, sources) in current.sources.iter().filter(|(id, _)| !in_use.contains(*id)) {
            self.settle()?;
            remove_sources(maps, *id, sources)?;
        }
        Ok(())
    }

    /// Waits until no packet is under way that has read what was changed, if anything was.
    fn settle(&mut self) -> Result<(), SteerError> {
        if self.unsettled {
            kernel::wait_for_programs()
                .map_err(|source| SteerError::kernel("waiting for the packets under way", source))?;
            self.unsettled = false;
        }
        Ok(())
    }
}

/// The rules as the maps want them, none claiming another's key.
fn desired(rules: &[ServiceRule]) -> Result<Vec<Desired>, SteerError> {
    let mut seen = BTreeSet::new();
    let mut desired = Vec::with_capacity(rules.len());
    for rule in rules {
        let next = Desired::of(rule)?;
        for key in &next.keys {
            if !seen.insert(*key) {
                let address = Address::from_v6(key.2);
                return Err(SteerError::Duplicate {
                    protocol: rule.protocol.label(),
                    port: rule.port,
                    address: (address != Address::ANY).then(|| address.to_ip()),
                });
            }
        }
        desired.push(next);
    }
    Ok(desired)
}

/// Refuses before anything is written what would not fit half-way.
fn check_room(current: &Current, to_write: &[(u32, bool, Desired)]) -> Result<(), SteerError> {
    let new_sources: usize =
        to_write.iter().filter(|(_, new, _)| *new).map(|(_, _, rule)| rule.sources.len()).sum();
    let sources = current.source_count() + new_sources;
    if sources > SOURCES_MAX as usize {
        return Err(SteerError::TooMany { what: "allowed networks", wanted: sources, limit: SOURCES_MAX });
    }
    let mut keys: BTreeSet<&KeyOrder> = current.keys.keys().collect();
    keys.extend(to_write.iter().flat_map(|(_, _, rule)| &rule.keys));
    if keys.len() > SERVICES_MAX as usize {
        return Err(SteerError::TooMany {
            what: "service addresses (a listener that names none takes all of this host's: name some)",
            wanted: keys.len(),
            limit: SERVICES_MAX,
        });
    }
    Ok(())
}

fn service_key(&(protocol, port, address): &KeyOrder) -> ServiceKey {
    ServiceKey::new(protocol, port, Address::from_v6(address))
}

fn source_key(id: u32, &(bits, address): &Prefix) -> Key<Plain<SourceKey>> {
    Key::new(SourceKey::SERVICE_BITS + bits, Plain(SourceKey::new(id, Address::from_v6(address))))
}

/// Brings `PORTS` in line with `SERVICES` as it shall be, for every port that either mentions: so what an earlier
/// attempt left half-done is mended too.
fn write_ports(
    maps: &mut Maps,
    current: &Current,
    wanted: &BTreeMap<KeyOrder, u32>,
) -> Result<(), SteerError> {
    let mut ports: BTreeMap<u16, PortValue> =
        current.keys.keys().map(|&(_, port, _)| (port, PortValue::default())).collect();
    for (&(protocol, port, address), &id) in wanted {
        let value = ports.entry(port).or_default();
        let served = match protocol {
            PROTOCOL_UDP => &mut value.udp,
            _ => &mut value.tcp,
        };
        if Address::from_v6(address) == Address::ANY {
            *served = served.with_any(id);
        } else {
            *served = served.with_exact();
        }
    }
    for (port, value) in ports {
        maps.ports.set(u32::from(port), Plain(value), 0).map_err(|source| SteerError::map(PORTS, source))?;
    }
    Ok(())
}

fn write_sources(maps: &mut Maps, id: u32, sources: &Sources) -> Result<(), SteerError> {
    for (prefix, verdict) in sources {
        maps.sources
            .insert(&source_key(id, prefix), verdict, 0)
            .map_err(|source| SteerError::map(SOURCES, source))?;
    }
    Ok(())
}

fn remove_sources(maps: &mut Maps, id: u32, sources: &Sources) -> Result<(), SteerError> {
    for prefix in sources.keys() {
        maps.sources.remove(&source_key(id, prefix)).map_err(|source| SteerError::map(SOURCES, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(addresses: &[&str], allow: &[&str]) -> ServiceRule {
        ServiceRule {
            protocol: ServiceProtocol::Udp,
            port: 11211,
            addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
            allow: allow.iter().map(|text| text.parse().expect("a network")).collect(),
        }
    }

    #[test]
    fn networks_are_cut_to_their_prefix_and_counted_once() {
        let sources = sources(&rule(&[], &["10.1.2.3/8", "10.0.0.0/8", "fd00::1/8"]).allow);
        assert_eq!(sources.len(), 2);
        assert!(sources.contains_key(&(96 + 8, Address::from_v4([10, 0, 0, 0]).octets())));
    }

    #[test]
    fn all_of_ipv6_does_not_open_ipv4() {
        let mapped = (96, Address::from_v4([0; 4]).octets());
        assert_eq!(sources(&rule(&[], &["::/0"]).allow).get(&mapped), Some(&SOURCE_DENIED));
        for both in [["::/0", "0.0.0.0/0"], ["0.0.0.0/0", "::/0"]] {
            assert_eq!(sources(&rule(&[], &both).allow).get(&mapped), Some(&SOURCE_ALLOWED));
        }
        assert_eq!(sources(&rule(&[], &["fd00::/8"]).allow).get(&mapped), None);
    }

    #[test]
    fn rules_that_cannot_be_meant_are_refused() {
        for (bad, text) in [
            (rule(&[], &[]), "allow-list"),
            (rule(&["0.0.0.0"], &["10.0.0.0/8"]), "leave the addresses empty"),
            (ServiceRule { port: 0, ..rule(&[], &["10.0.0.0/8"]) }, "port 0"),
        ] {
            let error = desired(&[bad]).expect_err("it is refused").to_string();
            assert!(error.contains(text), "{error}");
        }
        let twice = [rule(&["10.0.0.1"], &["10.0.0.0/8"]), rule(&["10.0.0.1"], &["10.1.0.0/16"])];
        let error = desired(&twice).expect_err("it is refused").to_string();
        assert!(error.contains("UDP port 11211 on 10.0.0.1"), "{error}");
    }
}
