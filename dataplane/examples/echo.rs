//! A service of one's own: sends every datagram back. Run it with a configuration whose listener names it:
//!
//! ```toml
//! [[interface]]
//! name = "eth1"
//! [[listener]]
//! service = "echo"
//! port = 7
//! ```
//!
//! `cargo run --release --example echo -- echo.toml`

use dataplane::daemon::Daemon;
use dataplane::service::{Context, Datagram, Replies, Service, ServiceSetup};

struct Echo;

impl Service for Echo {
    fn datagram(&mut self, _context: &mut Context<'_>, datagram: &Datagram<'_>, replies: &mut dyn Replies) {
        replies.send(&[datagram.payload]);
    }
}

fn main() -> anyhow::Result<()> {
    let daemon = Daemon::new().with_service("echo", |_: &ServiceSetup| Ok(Box::new(Echo)));
    if daemon.run_if_sentinel()? {
        return Ok(());
    }
    let path = std::env::args().nth(1).ok_or_else(|| anyhow::anyhow!("usage: echo CONFIG"))?;
    Ok(daemon.run(dataplane::config::load(path)?)?)
}

#[cfg(test)]
mod tests {
    use dataplane::simulation::{Scenario, Simulation};

    use super::Echo;

    #[test]
    fn every_datagram_comes_back_on_the_simulated_wire() {
        let mut simulation = Simulation::new(Scenario::of(7, Box::new(Echo)));
        let client = "10.0.0.2:4000".parse().expect("an address");
        for number in 0..100u32 {
            simulation.send(client, &number.to_be_bytes());
            simulation.settle();
            assert_eq!(simulation.receive(), Some((client, number.to_be_bytes().to_vec())));
        }
        assert_eq!(simulation.accounts().lost(), 0);
    }
}
