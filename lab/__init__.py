"""The lab: systems, scheduler, physics-aware training, jobs, data sets, client.

    systems/ scheduling/ measurement measure      physical systems, and the queue in front of them
    bench bench_config openers rigs plant_run     what a bench file names, opened
    guard guarding interlock permits protection   what brings a bench to its safe state,
    safe_state                                    whatever becomes of its process
    bringup rehearsal                             its check, and a rehearsal of what would be sent
    pat models stages encoder methods rules/      networks of physical layers, and how they learn
    trainer optimiser pipeline budget recipes     one training run, described by `config`
    checkpoints snapshots stateful batches        how it goes on after an end that came too early
    progress
    twins drives refit oracle                     digital twins of the systems
    audit... sentinels watching onlookers         what looks on: is the gradient right, has the
    keeping tending rematch                       device changed; and what follows a change
    datasets/ jobs/ comparison/ report/           tasks; durable work; methods beside one another
    client calls events uploading problems        a service as its clients see it

May import drivers and twins; never server. `client`, `config` and `bench_config` import neither
torch nor drivers. Asyncio lives in the scheduler and the jobs; training code is plain blocking
PyTorch, in processes of its own (`jobs`) or in whoever's thread calls it.
"""
