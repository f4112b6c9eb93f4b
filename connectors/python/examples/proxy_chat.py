"""An ordinary OpenAI client through semproxy's proxy: its base URL is all that changes.

    semproxy serve --policy-path policy.yaml --proxy-listen 127.0.0.1:8080 --proxy-engine-url http://127.0.0.1:8000 \\
        --proxy-engine-kind vllm --proxy-identity-keys-file keys.yaml
    python examples/proxy_chat.py --base-url http://127.0.0.1:8080/v1 --key sp-... --model meta-llama/Llama-3.1-8B "..."
"""

from __future__ import annotations

import argparse

from openai import OpenAI


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base-url", default="http://127.0.0.1:8080/v1")
    p.add_argument("--key", required=True, help="of `semproxy keys new`")
    p.add_argument("--model", required=True)
    p.add_argument("--exact", action="store_true", help="the exact cache for this request")
    p.add_argument("text")
    args = p.parse_args()
    headers = {"Semproxy-Compress": "off"} if args.exact else {}
    with OpenAI(base_url=args.base_url, api_key=args.key, max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(
            model=args.model, messages=[{"role": "user", "content": args.text}], extra_headers=headers
        )
    answer = raw.parse()
    print(answer.choices[0].message.content)
    print(f"decision: {raw.headers.get('Semproxy-Decision')}; request: {raw.headers.get('X-Request-Id')}")
    if answer.usage:
        print(f"usage: {answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens")


if __name__ == "__main__":
    main()
