//! The overlay: what a file on the appliance adds to the policy that is published to it.
//!
//! On-premises and peered clients, and rules of the operator's own. The two change apart from
//! each other, so both are kept, and what is in force is made of them anew each time.

use std::path::Path;

use ipc::control::{Adopted, Rejected};
use policy::Draft;
use policy::inventory::Scope;

use super::{Appliance, Arrival};
use crate::policy_store::Overlaid;
use crate::provider::{FileProvider, ProviderError};

/// Key of the sentence in `degraded`.
const SOURCE: &str = "overlay";

/// The file, the last good text of it, and what it is laid over.
#[derive(Debug)]
pub(super) struct Overlay {
    provider: FileProvider,
    text: Option<String>,
    /// What was published, while there is a text; otherwise it is what is in force.
    published: Option<Draft>,
}

impl Overlay {
    /// The overlay at `path`, over a policy that was in force before the start.
    pub(super) fn new(path: &Path, kept: Option<Overlaid>) -> Self {
        let (text, published) = match kept {
            Some(kept) => (Some(kept.text), Some(kept.published)),
            None => (None, None),
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
    pub fn publish(&mut self, draft: Draft, arrival: Arrival) -> Result<Adopted, Rejected> {
        let overlay = self.overlay.as_mut();
        let Some((overlay, text)) = overlay.and_then(|overlay| {
            let text = overlay.text.clone()?;
            Some((overlay, text))
        }) else {
            return self.adopt_arrived(draft, arrival);
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
        let adopted = self.adopt_overlaid(lay_over(&overlaid.published, added), Some(&overlaid))?;
        if let Some(overlay) = &mut self.overlay {
            overlay.published = Some(overlaid.published);
        }
        Ok(adopted)
    }

    /// Whether something is laid over what is published.
    pub(super) fn has_overlay(&self) -> bool {
        let overlay = self.overlay.as_ref();
        overlay.is_some_and(|overlay| overlay.text.is_some())
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
        let in_force = self.policy();
        let Some(overlay) = &mut self.overlay else {
            return Ok(());
        };
        let text = overlay.provider.text()?;
        if text.is_none() && overlay.text.is_none() {
            return Ok(());
        }
        let published = match &overlay.text {
            Some(_) => overlay.published.clone(),
            None => in_force.map(|policy| policy.draft().clone()),
        };
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
        let (adopted, published) = match added.zip(text) {
            Some((added, text)) => {
                let merged = lay_over(&published, added);
                let of = Overlaid { published, text };
                (self.adopt_overlaid(merged, Some(&of)), Some(of.published))
            }
            None => (self.adopt(published), None),
        };
        if let Some(overlay) = &mut self.overlay {
            match adopted {
                Ok(_) => overlay.published = published,
                // Why it was rejected is in the config log already.
                Err(_) => overlay.text = before,
            }
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
