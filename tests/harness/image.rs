//! The image tier's host side: the packages, the disk that Packer's scripts provision, and the appliance booted from its disk in the place
//! where the wire tier has its firewall namespace.
//!
//! Nothing here needs KVM, a loop or a tun device: qemu emulates, and its network cards are datagram sockets whose
//! frames a thread carries to and from the namespaces' links ([`wire`]).

pub mod build;
pub mod claims;
pub mod clock;
pub mod guest;
pub mod hardware;
pub mod metadata;
pub mod report;
pub mod shipped;
pub mod stage;
mod wire;

pub use guest::{Guest, Machine, Setup};
pub use hardware::Architecture;
pub use report::{Outcome, Report};
pub use stage::Stage;
