"""The types of a record's fields: closed identifiers, digests, numbers and times; no free text."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta

Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Pseudonym = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
Obligation = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}(\([A-Za-z0-9_.,/-]{1,1024}\))?$")]
Jurisdiction = Annotated[str, Meta(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
Time = Annotated[datetime, Meta(tz=True)]
# The number of a matter: too few letters for a name.
Matter = Annotated[str, Meta(pattern=r"^[A-Z]{1,4}(-[0-9]{1,8}){1,3}$")]
Count = Annotated[int, Meta(ge=0)]
# A record's place, `<log>#<number>`.
Reference = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}#[0-9]{1,18}$")]
# IPv4 or IPv6 in their canonical text.
Address = Annotated[str, Meta(pattern=r"^[0-9a-f.:]{2,45}$")]
# Where a device is may be unknown: it was revoked while its request was on its way.
PlaceJurisdiction = Annotated[str, Meta(pattern=r"^([A-Z]{2}(-[A-Z0-9]{1,3})?)?$")]
