//! Values given on the command line, `KEY=VALUE`, in the place of those of the file or of what is built in.

use std::net::SocketAddr;

use super::bounds;
use super::error::{ConfigError, ConfigErrors};
use super::model::{Config, Idle, ListenerTransport};
use super::reader::nearest;
use super::sections::{admin_address, listen_address};
use super::size::parse_size;

/// Where every listener of a service listens: this, and its name.
const LISTEN: &str = "listen.";
/// The other keys.
const KEYS: [&str; 5] = ["daemon.admin", "table.capacity", "transport", "workers.cores", "workers.spin_us"];

impl Config {
    /// Replaces values, each written `KEY=VALUE`:
    ///
    /// | key | value |
    /// |---|---|
    /// | `listen.SERVICE` | address and port of every listener of that service: `127.0.0.1:21211` |
    /// | `transport` | which way the packets of every listener come: `bypass`, `kernel` or `auto` |
    /// | `daemon.admin` | where the admin API is served: `127.0.0.1:9191` |
    /// | `table.capacity` | bytes of each worker's table: `1GiB` |
    /// | `workers.cores` | their cores: `2,3` |
    /// | `workers.spin_us` | microseconds of polling before a worker sleeps; `busy` never sleeps |
    ///
    /// What must hold between values is [`Config::check`]'s.
    ///
    /// # Errors
    /// Every assignment that cannot be.
    pub fn set(&mut self, assignments: &[String]) -> Result<(), ConfigErrors> {
        let errors: Vec<ConfigError> = assignments
            .iter()
            .filter_map(|assignment| {
                let set = self.set_one(assignment);
                let key = format!("--set {assignment}");
                set.err().map(|message| ConfigError { line: None, key, message })
            })
            .collect();
        if errors.is_empty() { Ok(()) } else { Err(ConfigErrors { file: None, errors }) }
    }

    fn set_one(&mut self, assignment: &str) -> Result<(), String> {
        let Some((key, value)) = assignment.split_once('=') else {
            return Err("write it KEY=VALUE, like listen.memcached=127.0.0.1:21211".to_owned());
        };
        let (key, value) = (key.trim(), value.trim());
        if let Some(service) = key.strip_prefix(LISTEN) {
            return self.listen(service, value);
        }
        match key {
            "daemon.admin" => self.daemon.admin = admin_address(value)?,
            "table.capacity" => self.table.capacity_bytes = within(parse_size(value)?, &bounds::TABLE_BYTES)?,
            "transport" => {
                let known = [ListenerTransport::Bypass, ListenerTransport::Kernel, ListenerTransport::Auto];
                let Some(&transport) = known.iter().find(|known| known.label() == value) else {
                    return Err(format!("{value:?} is none; there is bypass, kernel and auto"));
                };
                self.listeners.iter_mut().for_each(|listener| listener.transport = transport);
            }
            "workers.cores" => {
                let cores = value.split(',').map(|core| within(number(core)?, &bounds::CORE));
                let cores =
                    cores.map(|core| core.map(|core| core as usize)).collect::<Result<Vec<_>, _>>()?;
                self.workers.cores = Some(cores);
            }
            "workers.spin_us" if value == "busy" => self.workers.idle = Idle::Busy,
            "workers.spin_us" => {
                let spin_us = within(number(value)?, &bounds::SPIN_US)?;
                self.workers.idle = Idle::Adaptive { spin_us: u32::try_from(spin_us).unwrap_or(u32::MAX) };
            }
            _ => {
                let hint = nearest(key, &KEYS).map_or_else(
                    || format!("there is {LISTEN}SERVICE, {}", KEYS.join(", ")),
                    |near| format!("did you mean {near}?"),
                );
                return Err(format!("{key:?} cannot be set here; {hint}"));
            }
        }
        Ok(())
    }

    fn listen(&mut self, service: &str, value: &str) -> Result<(), String> {
        let address: SocketAddr = value
            .parse()
            .map_err(|_| format!("{value:?} is not an address with a port; write it like 127.0.0.1:21211"))?;
        let ip = listen_address(&address.ip().to_string())?;
        let port = within(address.port().into(), &bounds::PORT)?;
        let names: Vec<&str> = self.listeners.iter().map(|listener| listener.service.as_str()).collect();
        if !names.contains(&service) {
            return Err(format!(
                "there is no listener of the service {service:?}, but of {}",
                names.join(", ")
            ));
        }
        for listener in self.listeners.iter_mut().filter(|listener| listener.service == service) {
            (listener.addresses, listener.port) = (vec![ip], u16::try_from(port).unwrap_or(u16::MAX));
        }
        Ok(())
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a number"))
}

fn within(value: u64, bounds: &std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    if bounds.contains(&value) {
        return Ok(value);
    }
    Err(format!("{value} is not within {} to {}", bounds.start(), bounds.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(assignments: &[&str]) -> Result<Config, Vec<String>> {
        let mut config = Config::builtin();
        let assignments: Vec<String> = assignments.iter().map(|&text| text.to_owned()).collect();
        match config.set(&assignments) {
            Ok(()) => Ok(config),
            Err(errors) => Err(errors.errors.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn what_is_built_in_fits_together() {
        Config::builtin().check(&["memcached", "resp"]).expect("it is right");
    }

    #[test]
    fn a_service_moves_with_all_its_listeners() {
        let config = set(&["listen.memcached=127.0.0.2:21211", "table.capacity=64MiB", "workers.cores=1, 0"]);
        let config = config.expect("it can be");
        let ports: Vec<u16> = config.listeners.iter().map(|listener| listener.port).collect();
        assert_eq!(ports, [21211, 21211, 6379]);
        assert_eq!(config.table.capacity_bytes, 64 << 20);
        assert_eq!(config.workers.cores, Some(vec![1, 0]));
        config.check(&["memcached", "resp"]).expect("it is right still");
    }

    #[test]
    fn what_is_set_has_to_fit_the_rest() {
        let config = set(&["workers.cores=1,1"]).expect("each is a core");
        let errors = config.check(&["memcached", "resp"]).expect_err("one core for two workers").to_string();
        assert!(errors.contains("workers.cores[1]: core 1 is there twice"), "{errors}");
    }

    #[test]
    fn what_cannot_be_set_is_told_all_at_once() {
        let wrong = [
            ("listen.memcached", "write it KEY=VALUE"),
            ("listen.redis=127.0.0.1:1", "of memcached, memcached, resp"),
            ("listen.resp=127.0.0.1", "not an address with a port"),
            ("listen.resp=127.0.0.1:0", "0 is not within 1 to 65535"),
            ("listen.resp=0.0.0.0:1", "means every address"),
            ("table.capacitty=1GiB", "did you mean table.capacity?"),
            ("table.capacity=1GB", "is not a unit"),
            ("workers.cores=a", "is not a number"),
            ("daemon.admin=8.8.8.8:80", "public address"),
            ("transport=fast", "bypass, kernel and auto"),
            ("workers.spin_us=-1", "is not a number"),
        ];
        let errors = set(&wrong.map(|(assignment, _)| assignment)).expect_err("none of them can be");
        assert_eq!(errors.len(), wrong.len(), "{errors:#?}");
        for (error, (assignment, part)) in errors.iter().zip(wrong) {
            assert!(error.starts_with(&format!("--set {assignment}: ")) && error.contains(part), "{error}");
        }
    }
}
