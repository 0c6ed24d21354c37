"""The endpoint on one's own machine: fal's protocol over HTTP, a queue that survives whatever stops the server, a worker process for each device."""
