//! RESP over byte streams.

use std::net::SocketAddr;

use super::connection::Connection;
use super::parse::key_hint;
use super::session::Session;
use crate::request::Origin;
use crate::service::{
    Context, Next, Output, Progress, Service, ServiceError, ServiceFactory, ServiceSetup, StreamService,
};

/// The service of one worker's transport.
#[derive(Debug)]
pub struct Resp {
    session: Session,
    connections: Box<[Option<Connection>]>,
}

impl Resp {
    /// A service with room for all connections.
    #[must_use]
    pub fn new(setup: &ServiceSetup) -> Self {
        let connections = (0..setup.connections_max).map(|_| None).collect();
        Self { session: Session::new(setup), connections }
    }
}

impl StreamService for Resp {
    fn opened(&mut self, connection: usize, local: SocketAddr, peer: SocketAddr) {
        if let Some(place) = self.connections.get_mut(connection) {
            *place = Some(Connection::new(&mut self.session, local, peer));
        }
    }

    fn advance(
        &mut self,
        context: &mut Context<'_>,
        connection: usize,
        input: &[u8],
        output: &mut dyn Output,
    ) -> Progress {
        match self.connections.get_mut(connection) {
            Some(Some(place)) => {
                place.advance(&mut self.session, context, Origin(connection as u64), input, output)
            }
            // Nobody opened it.
            _ => Progress { consumed: input.len(), next: Next::Close },
        }
    }

    #[inline]
    fn key_hint<'i>(&self, input: &'i [u8]) -> Option<&'i [u8]> {
        key_hint(input)
    }

    fn closed(&mut self, connection: usize) {
        if let Some(connection) = self.connections.get_mut(connection).and_then(Option::take) {
            connection.close(&mut self.session);
        }
    }

    fn unavailable(&self) -> &'static [u8] {
        b"-ERR temporarily unavailable\r\n"
    }
}

/// Makes RESP's services.
#[derive(Clone, Copy, Debug)]
struct Factory;

impl ServiceFactory for Factory {
    fn create(&self, _: &ServiceSetup) -> Result<Option<Box<dyn Service>>, ServiceError> {
        // There is no RESP over datagrams.
        Ok(None)
    }

    fn create_stream(&self, setup: &ServiceSetup) -> Result<Option<Box<dyn StreamService>>, ServiceError> {
        Ok(Some(Box::new(Resp::new(setup))))
    }
}

/// Makes RESP's services, for streams alone.
#[must_use]
pub fn factory() -> impl ServiceFactory {
    Factory
}
