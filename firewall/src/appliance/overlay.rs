//! The overlay: what a file on the appliance adds to the policy that is published to it.
//!
//! On-premises and peered clients, and rules of the operator's own. The two change apart from
//! each other, so both are kept, and what is in force is made of them anew each time.

use std::path::Path;

use ipc::control::{Adopted, Rejected};
use policy::Draft;
use policy::inventory::Scope;

use super::Appliance;
use crate::policy_store::Overlaid;
use crate::provider::{FileProvider, ProviderError};

/// Key of the sentence in `degraded`.
const SOURCE: &str = "overlay";

/// The file, the last good text of it, and what it is laid over.
#[derive(Debug)]
pub(super) struct Overlay {
    provider: FileProvider,
    text: Option<String>,
    published: Option<Draft>,
}

impl Overlay {
    /// The overlay at `path`, over a policy that was in force before the start.
    pub(super) fn new(path: &Path, in_force: Option<&Draft>, kept: Option<Overlaid>) -> Self {
        let (text, published) = match kept {
            Some(kept) => (Some(kept.text), Some(kept.published)),
            None => (None, in_force.cloned()),
        };
        Self {
            provider: FileProvider::new(path),
            text,
            published,
        }
    }
}

impl Appliance {
    /// Brings a published policy into force, with the overlay over it.
    ///
    /// # Errors
    /// As [`Appliance::adopt`].
    pub fn publish(&mut self, draft: Draft) -> Result<Adopted, Rejected> {
        let Some(overlay) = &mut self.overlay else {
            return self.adopt(draft);
        };
        let Some(text) = overlay.text.clone() else {
            let adopted = self.adopt(draft.clone())?;
            self.note_published(draft);
            return Ok(adopted);
        };
        let scope = Scope::Overlay(&draft.preferences);
        let added = overlay.provider.parse(&text, scope);
        let added = added.map_err(|error| Rejected {
            place: SOURCE.to_owned(),
            why: crate::cli::chain(&error),
        })?;
        let overlaid = Overlaid {
            published: draft,
            text,
        };
        let adopted = self.adopt_overlaid(lay_over(&overlaid.published, added), &overlaid)?;
        self.note_published(overlaid.published);
        Ok(adopted)
    }

    fn note_published(&mut self, draft: Draft) {
        if let Some(overlay) = &mut self.overlay {
            overlay.published = Some(draft);
        }
    }

    /// The file of the overlay, to be watched.
    pub fn overlay_provider(&self) -> Option<&FileProvider> {
        self.overlay.as_ref().map(|overlay| &overlay.provider)
    }

    /// Looks at the overlay and brings what it says into force. A broken one is refused whole:
    /// the last good one stays, and the config log says why.
    pub fn read_overlay(&mut self) {
        match self.try_overlay() {
            Ok(()) => self.set_degraded(SOURCE, None),
            Err(error) => {
                let why = crate::cli::chain(&error);
                self.fault(SOURCE, &why);
                let sentence = format!("the last good overlay is in force: {why}");
                self.set_degraded(SOURCE, Some(sentence));
            }
        }
    }

    fn try_overlay(&mut self) -> Result<(), ProviderError> {
        let Some(overlay) = &mut self.overlay else {
            return Ok(());
        };
        let text = overlay.provider.text()?;
        if text.is_none() && overlay.text.is_none() {
            return Ok(());
        }
        let published = overlay.published.clone();
        let preferences = published.as_ref().map(|draft| draft.preferences.clone());
        let preferences = preferences.unwrap_or_default();
        let added = match &text {
            Some(text) => Some(overlay.provider.parse(text, Scope::Overlay(&preferences))?),
            None => None,
        };
        let before = std::mem::replace(&mut overlay.text, text.clone());
        // Without a published policy there is nothing to lay it over, and nothing leaves.
        let Some(published) = published else {
            return Ok(());
        };
        let adopted = match added.zip(text) {
            Some((added, text)) => {
                let merged = lay_over(&published, added);
                self.adopt_overlaid(merged, &Overlaid { published, text })
            }
            None => self.adopt(published),
        };
        // Why it was rejected is in the config log already.
        if let (Err(_), Some(overlay)) = (adopted, &mut self.overlay) {
            overlay.text = before;
        }
        Ok(())
    }
}

/// Adds an overlay to what was published. Groups of one id, and clients of one prefix, add up when
/// the policy is compiled, the latter with a fault; of nested prefixes the longest wins.
fn lay_over(published: &Draft, mut added: Draft) -> Draft {
    let mut merged = published.clone();
    merged.preferences = added.preferences;
    // Who is listed is served: nobody lists a client to have it refused.
    merged
        .served
        .extend(added.clients.iter().map(|client| client.net));
    merged.served.append(&mut added.served);
    merged.groups.append(&mut added.groups);
    merged.clients.append(&mut added.clients);
    merged.faults.append(&mut added.faults);
    merged
}
