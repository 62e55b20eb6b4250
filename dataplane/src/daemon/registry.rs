//! Which services this daemon can serve, by the name a configuration calls them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::protocol;
use crate::service::{Service, ServiceError, ServiceFactory, ServiceSetup};

/// Services by name.
#[derive(Clone)]
pub struct Registry(BTreeMap<String, Arc<dyn ServiceFactory>>);

impl Default for Registry {
    /// With the services that come with the daemon.
    fn default() -> Self {
        let mut registry = Self(BTreeMap::new());
        registry.register("memcached", Arc::new(protocol::memcached::factory()));
        registry.register("resp", Arc::new(protocol::resp::factory()));
        registry
    }
}

impl Registry {
    /// Registers a service; a name already taken now means this one.
    pub fn register(&mut self, name: &str, factory: Arc<dyn ServiceFactory>) {
        self.0.insert(name.to_owned(), factory);
    }

    /// Registers a service by a closure that makes a worker's instance of it.
    pub fn register_with<F>(&mut self, name: &str, create: F)
    where
        F: Fn(&ServiceSetup) -> Result<Box<dyn Service>, ServiceError> + Send + Sync + 'static,
    {
        self.register(name, Arc::new(create));
    }

    /// The service of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn ServiceFactory>> {
        self.0.get(name)
    }

    /// Every name, for error messages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}
