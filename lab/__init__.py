"""The lab: systems, scheduler, physics-aware training, jobs, data sets, client.

May import drivers and twins; never server. `client` and `config` import neither torch nor drivers.
Asyncio lives in the scheduler and the jobs; training code is plain blocking PyTorch in threads.
"""
