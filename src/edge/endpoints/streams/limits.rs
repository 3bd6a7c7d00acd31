//! A request about streams before the limits of its key: requests by the minute, and requests at once for as long as it is
//! answered, which of a reader may be days.

use crate::admission::reservation::{Estimate, Pass};
use crate::proto::openai::ApiError;
use crate::relay::context::Core;
use crate::relay::request::Request;

/// Lets a request in, or says why not. What it takes is given back with the request's account.
pub(crate) fn admit(request: &mut Request, core: &Core) -> Result<(), ApiError> {
    let Some(limited) = request.holder().and_then(|holder| holder.limited.clone()) else { return Ok(()) };
    let now = core.shard.clock.micros() * 1000;
    let mut pass = Pass::new(Estimate::default());
    let account = request.account_mut();
    if let Err(exhausted) = pass.enter(&limited, now) {
        return Err(account.refuse(&exhausted, &[], now));
    }
    account.fields = pass.fields(now).map(Vec::into_boxed_slice);
    account.pass = Some(pass);
    Ok(())
}
