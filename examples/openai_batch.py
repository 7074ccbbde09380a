"""Asks many questions with the `openai` package, each once and not twice.

    tether up                                                            # in another terminal
    export OPENAI_BASE_URL=http://127.0.0.1:8470/v1 OPENAI_API_KEY="$(cat ~/.tether/api_key)"
    python examples/openai_batch.py "What does os.path.join do?" "What is a generator?"

Each question has an idempotency key. Stop this program at any moment and start it again: what was answered is
not made anew, what was under way goes on, and each question is one job, whose id is printed with its answer.
"""

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

MODEL = "demo"
BATCH = "example-1"  # another name asks everything anew
AT_ONCE = 4


def idempotency_key(question: str) -> str:
    return f"{BATCH}-{hashlib.sha256(question.encode()).hexdigest()[:32]}"


def main(questions: list[str]) -> None:
    client = OpenAI(timeout=300)  # OPENAI_BASE_URL and OPENAI_API_KEY say where and who

    def ask(question: str) -> tuple[str, str]:
        answer = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            max_completion_tokens=40,
            temperature=0,
            extra_body={"priority": "batch"},
            extra_headers={"Idempotency-Key": idempotency_key(question)},
        )
        return answer.id.removeprefix("chatcmpl-"), answer.choices[0].message.content or ""

    with client, ThreadPoolExecutor(AT_ONCE) as threads:
        for question, (job_id, text) in zip(questions, threads.map(ask, questions), strict=True):
            print(f"{job_id}  {question}\n    {text!r}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["What does os.path.join do?", "What is a generator?", "What is a tuple?"])
