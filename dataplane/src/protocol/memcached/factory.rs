//! memcached for whoever assembles a daemon.

use super::stream::MemcachedStreams;
use super::udp::Memcached;
use crate::service::{Service, ServiceError, ServiceFactory, ServiceSetup, StreamService};

/// Makes memcached's services, for datagrams and for streams.
#[derive(Clone, Copy, Debug)]
struct Factory;

impl ServiceFactory for Factory {
    fn create(&self, setup: &ServiceSetup) -> Result<Option<Box<dyn Service>>, ServiceError> {
        Ok(Some(Box::new(Memcached::new(setup)?)))
    }

    fn create_stream(&self, setup: &ServiceSetup) -> Result<Option<Box<dyn StreamService>>, ServiceError> {
        Ok(Some(Box::new(MemcachedStreams::new(setup))))
    }
}

/// Makes memcached's services, for datagrams and for streams.
#[must_use]
pub fn factory() -> impl ServiceFactory {
    Factory
}
