import asyncio, time, cProfile, pstats
from .world import ECHO, World
async def test_speed(world: World) -> None:
    await world.register()
    r={"workflow":"echo","input":{"text":"x"}}
    async def one():
        a=await world.a.http.post("/v1/runs",json=r); assert a.status_code==202
    g=asyncio.Semaphore(64)
    async def lim():
        async with g: await one()
    await asyncio.gather(*[lim() for _ in range(100)])
    pr=cProfile.Profile(); 
    t=time.perf_counter(); await asyncio.gather(*[lim() for _ in range(1000)]); dt=time.perf_counter()-t
    print("\nruns/s",1000/dt)
    t=time.perf_counter()
    for _ in range(200): await world.a.http.get("/v1/runs?limit=1")
    print("GET ms",(time.perf_counter()-t)*5)
    pr.enable(); await asyncio.gather(*[lim() for _ in range(500)]); pr.disable()
    pstats.Stats(pr).sort_stats("cumtime").print_stats("agentflow/control|agentflow/store/control|agentflow/observe")
