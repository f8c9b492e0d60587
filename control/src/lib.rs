//! The control service: principals, roles, secrets, grants and proxies, and what each proxy must enforce.
//!
//! [`Control::start`] opens it over a [`Store`](keyferry_store::Store) that was opened with [`SCHEMA`]; [`Control::router`] is its
//! HTTP API. Pure parts come first: [`secret`] and [`principal`] read what operators write, [`effective`] works out what a
//! principal may do and why. `rows` keeps, `api` answers, `sync` tells proxies.

mod api;
mod attributes;
mod bootstrap;
mod details;
pub mod effective;
mod id;
mod name;
pub mod principal;
mod rows;
pub mod secret;
mod server;
mod survey;
mod sync;
mod token;

use std::sync::Arc;

use jiff::Timestamp;
use keyferry_store::{Store, StoreError};

pub use api::openapi_document;
pub use attributes::Labels;
pub use bootstrap::{Bootstrap, BootstrapError, Bootstrapped};
pub use details::Details;
pub use id::IdOf;
pub use rows::SCHEMA;
pub use server::{Limits, Listen, ServeError, Server, TlsFiles};
pub use survey::Survey;
pub use token::NoRandomness;

/// What time it is.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What an operator sets.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where sandboxes reach the shared proxy, where no proxy says it of itself.
    pub proxy_address: Option<String>,
}

/// The service.
#[derive(Clone)]
pub struct Control {
    app: Arc<api::App>,
}

impl Control {
    /// Over this database.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn start(store: Store, clock: Clock, settings: Settings) -> Result<Self, StoreError> {
        bootstrap::state(&store).await?;
        let hub = sync::Hub::start(store.clone(), Arc::clone(&clock)).await?;
        Ok(Self { app: Arc::new(api::App::new(store, hub, clock, settings)) })
    }

    /// Makes the first operator, where there is none.
    ///
    /// # Errors
    ///
    /// The database's; a key or an address that cannot be one.
    pub async fn bootstrap(&self, with: Bootstrap) -> Result<Bootstrapped, BootstrapError> {
        bootstrap::run(&self.app, with).await
    }

    /// Says that this database is a restored one: its numbers count anew, and no proxy takes it for an older state of what it has.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn begin_epoch(store: &Store) -> Result<(), StoreError> {
        bootstrap::new_epoch(store).await
    }

    /// The HTTP API.
    pub fn router(&self) -> axum::Router {
        api::router(&self.app, api::Door::Open)
    }

    /// The HTTP API for [`Server::open_for_owner`]: whoever shows no key is the first operator.
    pub fn owners_router(&self) -> axum::Router {
        api::router(&self.app, api::Door::Owner)
    }
}
