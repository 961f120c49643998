"""content-pipeline.yaml, built in Python."""

from agentflow.plan import Workflow, fail, fallback, parallel, result, retry, sequence, task

flow = Workflow(
    "content-pipeline",
    steps=20,
    usd=0.10,
    wall="3d",
    description="Writes an article: an outline, drafts that are reviewed until one is good enough, headline and teaser "
    "at once, and publication, which is taken back when a person does not sign it off.",
)
topic, audience = flow.input("topic", str), flow.input("audience", str)
outline, draft, notes = (flow.var(name, str) for name in ("outline", "draft", "notes"))
score = flow.var("score", float)
headline, teaser, link = (flow.var(name, str) for name in ("headline", "teaser", "link"))
flow.output(headline=headline, teaser=teaser, article=draft, score=score, link=link)

publisher = flow.python(
    "publish",
    "import hashlib\n"
    "def run(headline, article):\n"
    '    return {"link": "/articles/" + hashlib.sha256((headline + article).encode()).hexdigest()[:12]}\n',
)
remover = flow.python("withdraw", 'def run(link):\n    return {"withdrawn": link}\n')

plan = flow.llm(
    "outline",
    "small",
    "Outline an article about {topic} for {audience}: three points, one line each.",
    in_={"topic": topic, "audience": audience},
    max_tokens=200,
    retry={"max": 2},
)
write = flow.llm(
    "write",
    "small",
    "Write the article for this outline:\n{outline}\nMind these notes of the last review, if any: {notes}\n",
    in_={"outline": outline, "notes": notes},
    max_tokens=800,
    retry={"max": 2},
)
review = flow.llm(
    "review",
    "small",
    "Review this draft:\n{draft}\n"
    "score: from 0 to 1, how ready it is. notes: what is missing, in one sentence.\n",
    in_={"draft": draft},
    out={"score": float, "notes": str},
    max_tokens=200,
    retry={"max": 2},
)
name_it = flow.llm("headline", "small", "A headline for:\n{draft}", in_={"draft": draft}, max_tokens=50)
tease = flow.llm("teaser", "small", "A teaser of one sentence for:\n{draft}", in_={"draft": draft}, max_tokens=100)
withdraw = flow.tool("withdraw", remover, in_={"link": result.link}, retry={"max": 5})
publish = flow.tool(
    "publish",
    publisher,
    in_={"headline": headline, "article": draft},
    out={"link": str},
    undo=withdraw,
    retry={"max": 3},
)
sign_off = flow.human(
    "sign_off", "editor", in_={"headline": headline, "link": link, "score": score}, out={"ok": bool}, timeout="2d"
)
take_back = flow.compensate("take_back", scope="publication")

flow.root(
    sequence(
        task(plan, set={outline: result.text}),
        retry(  # a draft that is not good enough is written again with the notes
            sequence(
                task(write, set={draft: result.text}),
                task(review, set={score: result.score, notes: result.notes}, ok_if=result.score >= 0.8),
            ),
            max=3,
        ),
        parallel(task(name_it, set={headline: result.text}), task(tease, set={teaser: result.text})),
        fallback(
            sequence(
                task(publish, set={link: result.link}),
                task(sign_off, ok_if=result.ok, skip_if=score >= 0.95),
                label="publication",
            ),
            sequence(take_back, fail()),
        ),
    )
)
