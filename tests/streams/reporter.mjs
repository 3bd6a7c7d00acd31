// Says how many passed, which of them not at once, and what is wrong with each that did not.

const first_lines = (text) => text.split("\n").slice(0, 4).join("\n    ");

export default class Reporter {
  onTestRunEnd(modules, errors) {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const ended = (state) => tests.filter((test) => test.result().state === state);
    for (const test of ended("passed").filter((test) => test.diagnostic()?.retryCount > 0)) {
      console.log(`AGAIN ${test.fullName}`);
      for (const error of test.result().errors ?? []) console.log(`    ${first_lines(error.message)}`);
    }
    for (const test of ended("failed")) {
      console.log(`FAILED ${test.fullName}`);
      for (const error of test.result().errors) console.log(`    ${first_lines(error.message)}`);
    }
    const broken = [...errors, ...modules.flatMap((module) => module.errors())];
    for (const error of broken) console.log(`BROKEN ${first_lines(error.stack ?? error.message)}`);
    const [passed, failed, skipped] = ["passed", "failed", "skipped"].map((state) => ended(state).length);
    console.log(`${passed} passed, ${failed + broken.length} failed, ${skipped} left out`);
  }
}
