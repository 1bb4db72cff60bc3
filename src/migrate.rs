//! `holdfast migrate`

use anyhow::Context;
use holdfast_shared::config::Settings;
use holdfast_shared::store::PostgresStore;
use secrecy::ExposeSecret;

/// Brings the database up to date.
pub(crate) async fn run(settings: &Settings) -> anyhow::Result<()> {
    let url = settings.database_url.as_ref().context("DATABASE_URL is not set; it names the database to migrate")?;
    let store =
        PostgresStore::connect(url.expose_secret(), 1).await.context("cannot use the database of DATABASE_URL")?;
    store.migrate().await.context("the migration failed; nothing of the failed step was kept")?;
    say("The database is up to date.");
    Ok(())
}

/// Prints a line for people.
#[expect(clippy::print_stdout, reason = "this is what the command is asked to say")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}
