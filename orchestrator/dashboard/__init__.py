"""What people look at: pages made on the server, by the same functions that the API's routes call.

A request goes: `api.gate` (size, rate) -> `visitors` (who is it) -> a router of `routes` (a page, or what a form does)
-> `rendering` (a template). Every page reads well without JavaScript; with it, pages follow a job live.
"""
