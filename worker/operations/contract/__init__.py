"""The contract as documents: AsyncAPI, JSON Schemas, samples, a page, and what breaks an older release."""
