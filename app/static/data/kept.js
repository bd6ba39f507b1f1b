/** What the lab has measured or trained once and for all, and is kept beside this file. */

/** @param {string} file  @param {string} what  names it in the error  @returns {Promise<any>} */
export async function kept(file, what) {
  const answer = await fetch(new URL(file, import.meta.url)).catch(() => ({ status: "no answer" }));
  if (!answer.ok) throw new Error(`${what} did not arrive (${answer.status})`);
  return answer.json();
}
